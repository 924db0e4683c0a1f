"""Trunk on tiles, merging, head: trunks of every kind, levels, NaN and infinity, older files."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from export.heads import create_head
from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import Plan
from graphs.front import PIXELS
from tests.graphs.anysize.tiled_heads import (
    BOUND,
    CARD,
    Pool,
    attend,
    compiled,
)
from tests.graphs.anysize.tiling import Tiled, errors, session


class Residual(nn.Module):
    """A ResNet's stem (7×7, padded maximum) and a block with a strided 1×1 shortcut; levels of stride 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.a = nn.Conv2d(8, 12, 3, 2, 1)
        self.b = nn.Conv2d(12, 12, 3, 1, 1, groups=3)
        self.shortcut = nn.Conv2d(8, 12, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        return (self.b(self.a(x).relu()) + self.shortcut(x)).relu()


class Dense(nn.Module):
    """DenseNet's concatenations, and its average of 2×2 without padding between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, 1, 1) for i in range(3))
        self.transition = nn.Conv2d(14, 9, 1)
        self.last = nn.Conv2d(9, 7, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers[:2]:
            x = torch.cat([x, layer(x.relu())], 1)
        x = nn.functional.avg_pool2d(self.transition(x.relu()), 2)
        return torch.cat([x, self.last(x.relu())], 1).relu()


class Patches(nn.Module):
    """ConvNeXt's patches of 4×4, depthwise 7×7, LayerNorm and linear layers over channels, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.depthwise = nn.Conv2d(8, 8, 7, 1, 3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)


class Unpadded(nn.Module):
    """VGG's maxima of 2×2 without padding; a dilated convolution, an asymmetric Pad, ceil_mode, averages that count no pads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 1, 1)
        self.dilated = nn.Conv2d(6, 6, 3, 1, 2, dilation=2)
        self.valid = nn.Conv2d(6, 8, (3, 5), (2, 1), 0)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        x = nn.functional.avg_pool2d(self.dilated(x).relu(), 3, 2, 1, ceil_mode=True, count_include_pad=False)
        return self.valid(nn.functional.pad(x, (1, 2, 0, 1))).relu()


LAST: dict[str, Pool] = {
    "mean": lambda x: x.mean((2, 3)),
    "top": lambda x: x.amax((2, 3)),
    "sharp": lambda x: torch.logsumexp(3 * x, (2, 3)),
}


@pytest.mark.parametrize("trunk", [Residual, Dense, Patches, Unpadded])
def test_trunks_of_every_kind(trunk: type[nn.Module], rng: np.random.Generator) -> None:
    plan = compiled(trunk(), **LAST)
    for _ in range(3):
        worst = errors(plan, rng)
        assert max(worst.values()) <= BOUND, worst


class Cropped(nn.Module):
    """Rows and columns that are cut off, in front and behind, before windows that look there."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.after(x[:, :, 2:, 1:-2].relu())
        return nn.functional.pad(x, (0, -1, -1, 0))


def averaged(x: Tensor) -> Tensor:
    """Averages near the border, reduced at once."""
    return nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False).mean((2, 3))


def classes(x: Tensor) -> Tensor:
    """The largest index of a best channel: a maximum of integers."""
    return x.argmax(1, keepdim=True).amax((2, 3)).float()


@pytest.mark.parametrize("trunk", [Cropped, Patches])
def test_what_is_cut_off_and_what_is_reduced_at_once(trunk: type[nn.Module], rng: np.random.Generator) -> None:
    plan = compiled(trunk(), averaged=averaged, classes=classes, **LAST)
    for _ in range(3):
        worst = errors(plan, rng)
        assert max(worst.values()) <= BOUND, worst


class TwoLevels(nn.Module):
    """Poolings of two levels of a pyramid, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 5, 3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        y = self.second(x)
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), y.mean((2, 3)), y.exp().sum((2, 3))], 1)


def test_reductions_of_several_levels(rng: np.random.Generator) -> None:
    plan = compiled(TwoLevels(), logits=lambda x: x)
    assert plan.geometry is not None
    assert plan.geometry.alignment == (6, 6)
    for _ in range(3):
        assert max(errors(plan, rng).values()) <= BOUND


class Poisoned(nn.Module):
    """NaN where the first channel is white, infinity where it is 232."""

    def forward(self, x: Tensor) -> Tensor:
        infinite = torch.where((x - 2.55).abs() < 0.05, torch.inf, x)
        return nn.functional.pad(torch.where(x > 2.9, torch.nan, infinite), (1, 1, 1, 1))


@pytest.fixture(scope="module")
def poisoned() -> Plan:
    heads = {name: create_head(name, 3) for name in ("gap", "sum", "gem", "lse", "softmax", "lp", "attention")}
    return compiled(Poisoned(), **heads, std=lambda x: x.std((2, 3)), attend=lambda x: attend(torch.cat([x, x], 1)))


@pytest.mark.parametrize("value", [255, 232])
def test_nan_and_infinity_propagate_as_in_the_whole_image(poisoned: Plan, value: int, rng: np.random.Generator) -> None:
    plan = poisoned
    image = rng.integers(0, 200, (int(rng.integers(9, 60)), int(rng.integers(9, 60)), 3), dtype=np.uint8)
    image[int(rng.integers(image.shape[0])), int(rng.integers(image.shape[1])), 0] = value
    expected = session(plan.plain).run(None, {PIXELS: image[None]})
    assert not np.isfinite(expected[0]).all()
    for name, mine, theirs in zip(plan_names(plan), Tiled(plan)([image], [(8, 13)], rng), expected, strict=True):
        np.testing.assert_array_equal(np.isfinite(mine), np.isfinite(theirs), err_msg=name)
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs), err_msg=name)
        there = np.isfinite(theirs)
        np.testing.assert_allclose(mine[there], theirs[there], rtol=1e-5, err_msg=name)


def plan_names(plan: Plan) -> list[str]:
    return [str(output.name) for output in plan.plain.graph.outputs]


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_files_of_older_opsets(opset: int, rng: np.random.Generator) -> None:
    """A file as exporters wrote it then: nothing is said of the values between the nodes."""
    weights = {"w": (5, 3, 3, 3), "b": (5,), "gemm": (4, 10), "bias": (4,)}
    nodes = [
        onnx.helper.make_node(
            "Conv", ["images", "w", "b"], ["features"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        onnx.helper.make_node("GlobalAveragePool", ["features"], ["mean"], name="mean"),
        onnx.helper.make_node("ReduceL2", ["features"], ["norm"], name="norm", axes=[2, 3], keepdims=0),
        onnx.helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        onnx.helper.make_node("Concat", ["flat", "norm"], ["embedding"], name="embedding", axis=1),
        onnx.helper.make_node("Gemm", ["embedding", "gemm", "bias"], ["logits"], name="gemm", transB=1),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "old",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, "h", "w_"])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in weights.items()],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    plan = compile_plan(ir.from_proto(proto), CARD)
    assert max(errors(plan, rng).values()) <= BOUND

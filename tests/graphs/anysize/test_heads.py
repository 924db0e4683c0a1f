"""Every pooling head of the export, and the shipped models, on shared canvases against each image alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from export.backbones.convnet import ConvNet
from export.heads import HEADS, create_head
from export.network import Network
from export.to_onnx import to_onnx
from graphs.anysize.compile import compile_plan
from graphs.card import ModelCard
from tests.graphs.anysize import exactness, networks

CONFIGURATIONS: dict[str, tuple[str, dict[str, object]]] = {
    **{name: (name, {}) for name in HEADS},
    "gem, one p a channel": ("gem", {"p": 7.0, "per_channel": True}),
    "lp, mean": ("lp", {"p": 3.0, "mean": True}),
    "lse, sharp": ("lse", {"r": 30.0, "per_channel": True}),
    "softmax, least": ("softmax", {"alpha": -4.0}),
    "attention, ungated": ("attention", {"hidden": 5, "gated": False}),
    "spp, average": ("spp", {"levels": [1, 3], "kind": "avg"}),
    "quadrants, max": ("quadrants", {"kind": "max"}),
}


class Heads(nn.Module):
    """One small trunk, and every head on it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, padding=2),
            nn.LeakyReLU(),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(8, 6, 3, padding=1),
        )
        self.heads = nn.ModuleList(create_head(name, 6, **config) for name, config in CONFIGURATIONS.values())
        for parameter in self.heads.parameters():  # not where the training starts: some gates are ½ there
            parameter.data.add_(0.3 * torch.rand_like(parameter))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.trunk(x)
        return tuple(head(features) for head in self.heads)


def largest(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Sizes: the smallest, some small, one of up to 700 pixels."""
    return [*exactness.draw(rng, (1, 1), 90, 5), (int(rng.integers(300, 701)), int(rng.integers(300, 701)))]


def test_every_head_is_exact(rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(2**31)))
    names = tuple(f"head_{index}" for index in range(len(CONFIGURATIONS)))
    model = networks.to_onnx(Heads().eval(), 1, names)
    plan = compile_plan(model, exactness.CARD)
    assert plan.ragged is not None, [str(obstacle) for obstacle in plan.ragged_obstacles]
    canvas, extents = exactness.canvas_of(rng, largest(rng))
    expected = exactness.alone(exactness.session(model), canvas, extents)
    got = exactness.session(plan.ragged).run(None, {"pixels": canvas, "extents": extents})
    floats = exactness.session(exactness.ragged_floats(model))
    also = floats.run(None, {"images": exactness.poisoned(rng, canvas, extents), "extents": extents})
    errors = {
        name: max(exactness.error([a], [c]), exactness.error([b], [c]))
        for name, a, b, c in zip(CONFIGURATIONS, got, also, expected, strict=True)
    }
    assert max(errors.values()) <= exactness.BOUND, errors


@pytest.mark.parametrize("pooling", ["gap", "gem"])
def test_the_exports_own_pyramid_is_exact(pooling: str, rng: np.random.Generator) -> None:
    """ConvNet halves the image by averages that count no padding, and merges its levels by maxima."""
    torch.manual_seed(int(rng.integers(2**31)))
    backbone = ConvNet(3, num_features=8, widths=(6, 8, 8), depths=(1, 1), levels=3)
    model = to_onnx(Network(backbone, {"pooling": pooling}, 5), exactness.CARD)
    card = ModelCard.read(model)
    assert card is not None
    plan = compile_plan(model, card)
    assert plan.ragged is not None
    assert plan.geometry is not None
    assert plan.geometry.stride == (backbone.total_stride, backbone.total_stride)
    assert (plan.geometry.min_height, plan.geometry.min_width) == (card.min_height, card.min_width)
    canvas, extents = exactness.canvas_of(rng, largest(rng))
    got = exactness.session(plan.ragged).run(None, {"pixels": canvas, "extents": extents})
    assert exactness.error(got, exactness.alone(exactness.session(model), canvas, extents)) <= exactness.BOUND


MODELS = sorted((Path(__file__).parents[3] / "models").glob("*/*/model.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.parts[-3])
def test_shipped_models_are_exact(path: Path, rng: np.random.Generator) -> None:
    model = ir.load(path)
    card = ModelCard.read(model)
    assert card is not None
    plan = compile_plan(model, card)
    assert plan.ragged is not None, [str(obstacle) for obstacle in plan.ragged_obstacles]
    sizes = exactness.draw(rng, (card.min_height, card.min_width), 120, 5)
    canvas, extents = exactness.canvas_of(rng, sizes)
    canvas = np.ascontiguousarray(canvas[..., : card.preprocessing.channel_count])
    plain, ragged = exactness.session(plan.plain), exactness.session(plan.ragged)
    rows = [
        plain.run(None, {"pixels": np.ascontiguousarray(sample[None, :h, :w])})
        for sample, (_, _, h, w) in zip(canvas, extents, strict=True)
    ]
    expected = [np.concatenate(column) for column in zip(*rows, strict=True)]
    assert exactness.error(ragged.run(None, {"pixels": canvas, "extents": extents}), expected) <= exactness.BOUND

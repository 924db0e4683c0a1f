"""Every family of networks: images of many sizes on one canvas give what each of them gives alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphs.anysize.compile import compile_plan
from tests.graphs.anysize import exactness, networks, tiling

IMAGES = int(os.environ.get("ANYSIZE_IMAGES", "0"))
"""Images a network; 0 is the quick run: few, on networks cut short."""


_EXCITED = "needs the whole image, goes back into the feature map at"
NOT_TILED = {
    **dict.fromkeys(
        (
            "regnety_002",
            "mobilenetv3_small_050",
            "efficientnet_b0",
            "ghostnet_050",
            "mixnet_s",
            "nfnet_l0",
            "test_nfnet",
        ),
        _EXCITED,
    ),
    "ecaresnet26t": _EXCITED,
    "resnet50_gn": "InstanceNormalization",
}
"""Networks with a reduction over the whole image in their middle, and words of the reason."""

CHOSEN = [family for family in networks.FAMILIES if IMAGES or not family.long]


@pytest.mark.parametrize("family", CHOSEN, ids=lambda family: family.name)
def test_mixed_sizes_and_tiles_are_exact(family: networks.Family, timm: Any, rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(2**31)))
    network = networks.build(timm, family, whole=IMAGES > 0)
    model = networks.to_onnx(network, family.minimum)
    before = model.clone()
    plan = compile_plan(model, exactness.CARD)
    assert [node.op_type for node in model.graph] == [
        node.op_type for node in before.graph
    ]  # the file's own graph stays
    assert plan.ragged is not None, [str(obstacle) for obstacle in plan.ragged_obstacles]
    assert plan.geometry is not None
    minimum = plan.geometry.min_height, plan.geometry.min_width
    assert minimum == (family.minimum, family.minimum)

    plain, ragged = exactness.session(model), exactness.session(plan.ragged)
    assert [output.name for output in ragged.get_outputs()] == [output.name for output in plain.get_outputs()]
    worst = spread = 0.0
    for sizes in canvases(rng, family.minimum):
        canvas, extents = exactness.canvas_of(rng, sizes)
        expected = exactness.alone(plain, canvas, extents)
        got = ragged.run(None, {"pixels": canvas, "extents": extents})
        worst = max(worst, exactness.error(got, expected))
        spread = max(spread, float(np.ptp(expected[0], axis=0).max() / np.abs(expected[0]).max()))
    assert spread > 1e-3  # logits that depend on the image
    print(f"{family.name}: {worst:.1e} over {sum(map(len, canvases(rng, family.minimum)))} images")
    assert worst <= family.bound

    floats = exactness.session(exactness.ragged_floats(model))
    poison = exactness.poisoned(rng, canvas, extents)
    assert exactness.error(floats.run(None, {"images": poison, "extents": extents}), expected) <= family.bound

    if family.name in NOT_TILED:
        assert plan.tiled is None
        assert NOT_TILED[family.name] in str(plan.tiled_obstacles[0])
    else:
        tiles = tiling.errors(plan, rng, images=2, most=120, cuts=3)
        print(f"{family.name} in tiles: {tiles}")
        assert max(tiles.values()) <= exactness.BOUND


def canvases(rng: np.random.Generator, minimum: int) -> list[list[tuple[int, int]]]:
    """Sizes of the images on each canvas: in the quick run a few small ones and one that is large in one side."""
    if not IMAGES:
        large = (int(rng.integers(400, 701)), minimum + int(rng.integers(1, 60)))
        small = exactness.draw(rng, (minimum, minimum), minimum + 80, 3)
        return [[large if rng.random() < 0.5 else large[::-1], small[2]], small]
    sizes = exactness.draw(rng, (minimum, minimum), 700, IMAGES)
    return [sizes[start : start + 4] for start in range(0, len(sizes), 4)]


class Unknown(nn.Module):
    """A stem, something that the compiler cannot follow, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 4, 3, 2, padding=1), middle, nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.middle(torch.relu(self.stem(x))).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("make", "op_type", "says"),
    [
        (lambda timm: timm.layers.Conv2dSame(4, 4, 3, 2), "Pad", "SAME"),
        (lambda timm: nn.Upsample(scale_factor=2, mode="bilinear"), "Resize", "between positions"),
        (lambda timm: nn.ConvTranspose2d(4, 4, 2, 2), "ConvTranspose", "transposed"),
        (lambda timm: nn.ReflectionPad2d(1), "Pad", "reflect"),
    ],
    ids=["same", "resize", "transposed", "reflect"],
)
def test_what_the_compiler_does_not_know_is_named_and_served_plainly(
    make: Callable[[Any], nn.Module], op_type: str, says: str, timm: Any, rng: np.random.Generator
) -> None:
    model = networks.to_onnx(Unknown(make(timm)).eval(), 1)
    plan = compile_plan(model, exactness.CARD)
    assert plan.ragged is None
    assert plan.tiled is None
    assert plan.geometry is None
    (obstacle,) = plan.ragged_obstacles
    assert obstacle.op_type == op_type
    assert obstacle.node in {node.name for node in model.graph}
    assert says in obstacle.reason
    canvas, extents = exactness.canvas_of(rng, [(41, 57)])
    pixels = np.ascontiguousarray(canvas[:, :41, :57])
    expected = exactness.alone(exactness.session(model), canvas, extents)
    assert exactness.error(exactness.session(plan.plain).run(None, {"pixels": pixels}), expected) <= exactness.BOUND

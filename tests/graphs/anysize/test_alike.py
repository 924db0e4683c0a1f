"""Images of nearly equal sizes on one canvas, masked on levels of small stride alone, against each of them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from graphs.anysize.alike import Alike, make_alike
from graphs.anysize.compile import compile_plan
from graphs.anysize.sizes import Level
from graphs.card import ModelCard
from service.runtime.reading import read_model
from tests.graphs.anysize import exactness, networks

FAMILIES = {family.name: family for family in networks.FAMILIES}
NAMES = ("resnet18", "mobilenetv3_small_050", "convnext_atto")
"""A pooling after the stem, reductions in the middle, a stem of stride 4. (inception_v3 and densenet121 take 15 s each.)"""

COARSE = 4


def compiled(model: ir.Model, card: ModelCard = exactness.CARD) -> Alike:
    plan = compile_plan(model, card)
    alike = make_alike(plan.plain, COARSE)
    assert alike is not None
    assert plan.ragged is not None
    assert len(alike.model.graph) < len(plan.ragged.graph)
    return alike


def alike_sizes(rng: np.random.Generator, alike: Alike, shape: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Sizes that share a canvas of a shape, among them the smallest."""
    low = alike.least("height", shape[0]), alike.least("width", shape[1])
    drawn = [(int(rng.integers(low[0], shape[0] + 1)), int(rng.integers(low[1], shape[1] + 1))) for _ in range(count)]
    return [low, *drawn]


@pytest.mark.parametrize("name", NAMES)
def test_alike_images_are_exact_whatever_lies_around_them(name: str, timm: Any, rng: np.random.Generator) -> None:
    """Relative error ≤ 2e-6; pixels of noise, and without the front NaN, infinities and 3e38."""
    family = FAMILIES[name]
    torch.manual_seed(int(rng.integers(2**31)))
    model = networks.to_onnx(networks.build(timm, family, whole=False), family.minimum)
    alike = compiled(model)
    plain, masked = exactness.session(model), exactness.session(alike.model)
    floats = exactness.session(exactness.ragged_floats(model, coarse=COARSE))
    differ = 0
    for _ in range(3):
        shape = tuple(int(side) for side in rng.integers(max(family.minimum, 20), max(family.minimum, 20) + 80, 2))
        sizes = alike_sizes(rng, alike, (shape[0], shape[1]), 5)
        differ += len(set(sizes)) > 1
        canvas = rng.integers(0, 256, (len(sizes), *shape, 3), np.uint8)
        extents = np.array([(0, 0, *size) for size in sizes], np.int64)
        expected = exactness.alone(plain, canvas, extents)
        assert exactness.error(masked.run(None, {"pixels": canvas, "extents": extents}), expected) <= family.bound
        poison = exactness.poisoned(rng, canvas, extents)
        assert exactness.error(floats.run(None, {"images": poison, "extents": extents}), expected) <= family.bound
    assert differ


def test_shipped_model_on_canvases_of_alike_images(rng: np.random.Generator) -> None:
    """Relative error of logits ≤ 2e-6 against the plain graph, 20 canvases of up to 64 pixels."""
    model, card = read_model(Path(__file__).parents[3] / "models" / "digits" / "1" / "model.onnx")
    plain = exactness.session(compile_plan(model, card).plain)
    alike = compiled(model, card)
    masked = exactness.session(alike.model)
    for _ in range(20):
        shape = int(rng.integers(8, 65)), int(rng.integers(8, 65))
        sizes = alike_sizes(rng, alike, shape, 7)
        canvas = rng.integers(0, 256, (len(sizes), *shape, 1), np.uint8)
        got = masked.run(None, {"pixels": canvas, "extents": np.array([(0, 0, *size) for size in sizes], np.int64)})
        alone = [plain.run(None, {"pixels": image[None, :h, :w]}) for image, (h, w) in zip(canvas, sizes, strict=True)]
        assert exactness.error(got, [np.concatenate(rows) for rows in zip(*alone, strict=True)]) <= exactness.BOUND


def test_sizes_are_alike_where_no_deep_level_has_a_cell_more(rng: np.random.Generator) -> None:
    """All lengths to 400, against every level's own number of cells."""
    strides, offsets = rng.integers(4, 40, 5).tolist(), rng.integers(-9, 9, 5).tolist()
    levels = [Level("width", stride, offset) for stride, offset in zip(strides, offsets, strict=True)]
    alike = Alike(
        ir.Model(ir.Graph([], [], nodes=[], name="g"), ir_version=9), frozenset([*levels, Level("height", 4)])
    )
    lengths = np.arange(10, 401)
    cells = [tuple(level.cells(int(length)) for level in levels) for length in lengths]
    classes = alike.classes("width", lengths)
    for one in range(len(lengths) - 1):
        assert (classes[one] == classes[one + 1]) == (cells[one] == cells[one + 1])
    assert (np.diff(classes) >= 0).all()


def test_network_without_deep_levels_has_none() -> None:
    one = ir.Value(name="pixels", shape=ir.Shape(["n", "h", "w", 3]), type=ir.TensorType(ir.DataType.UINT8))
    cast = ir.node("Cast", [one], {"to": int(ir.DataType.FLOAT)})
    mean = ir.node("ReduceMean", cast.outputs, {"axes": [1, 2], "keepdims": 0})
    mean.outputs[0].name = "logits"
    graph = ir.Graph([one], mean.outputs, nodes=[cast, mean], opset_imports={"": 17}, name="g")
    assert make_alike(ir.Model(graph, ir_version=9), COARSE) is None


def test_canvas_that_is_not_alike_is_wrong(rng: np.random.Generator) -> None:
    """So the classes matter: one pixel more than the class allows, and the answer is off by far more than rounding."""
    path = Path(__file__).parents[3] / "models" / "digits" / "1" / "model.onnx"
    model, card = read_model(path)
    alike = compiled(model, card)
    small = alike.least("height", 32) - 1
    canvas = rng.integers(0, 256, (1, 32, 32, 1), np.uint8)
    plain = exactness.session(compile_plan(model, card).plain)
    (expected, *_), (got, *_) = (
        plain.run(None, {"pixels": canvas[:, :small]}),
        exactness.session(alike.model).run(
            None, {"pixels": canvas, "extents": np.array([(0, 0, small, 32)], np.int64)}
        ),
    )
    assert exactness.error([got], [expected]) > 1e-3

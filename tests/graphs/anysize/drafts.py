"""Hand-made graphs: one operator or two between a float image and a pooled output, on poisoned canvases and alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from graphs.anysize.analysis import Analysis, analyse
from graphs.anysize.domains import Axes
from graphs.anysize.fold import fold_constants
from graphs.anysize.geometry import geometry
from tests.graphs.anysize import exactness


class Draft:
    """A graph being written. Attributes: `x`, the image (N,3,h,w) float32, and `rng` for weights."""

    def __init__(self, rng: np.random.Generator, opset: int = 20, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.rng, self.opset, self.dtype = rng, opset, dtype
        self._tape = ir.tape.Tape()
        self.x = ir.Value(name="x", shape=ir.Shape(["n", 3, "h", "w"]), type=ir.TensorType(dtype))

    def op(self, kind: str, *operands: ir.Value | None, **attributes: Any) -> ir.Value:
        return self._tape.op(kind, list(operands), attributes)

    def ops(self, kind: str, *operands: ir.Value, outputs: int, **attributes: Any) -> list[ir.Value]:
        return list(self._tape.op_multi_out(kind, list(operands), attributes, num_outputs=outputs))

    def const(self, array: Any, dtype: Any = None) -> ir.Value:
        array = np.asarray(array, dtype or (self.dtype.numpy() if np.asarray(array).dtype.kind == "f" else np.int64))
        return self._tape.initializer(ir.tensor(array, name=f"constant_{len(self._tape.initializers)}"))

    def weights(self, *shape: int) -> ir.Value:
        return self.const(self.rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:]))))

    def conv(self, x: ir.Value, c: int = 3, out: int = 4, k: tuple[int, int] = (3, 3), **attributes: Any) -> ir.Value:
        group = attributes.get("group", 1)
        return self.op("Conv", x, self.weights(out, c // group, *k), self.weights(out), **attributes)

    def reduce(self, kind: str, x: ir.Value, axes: list[int], keepdims: int = 1) -> ir.Value:
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return self.op(kind, x, self.const(axes), keepdims=keepdims)
        return self.op(kind, x, axes=axes, keepdims=keepdims)

    def pooled(self, x: ir.Value) -> ir.Value:
        """Mean, maximum and minimum over (2,3), so that a wrong cell shows."""
        parts = [self.reduce(kind, x, [2, 3], 0) for kind in ("ReduceMean", "ReduceMax", "ReduceMin")]
        return self.op("Concat", *parts, axis=1)

    def model(self, y: ir.Value) -> ir.Model:
        y = self.op("Identity", y)
        y.name = "y"
        y.dtype = self.dtype
        graph = ir.Graph(
            [self.x],
            [y],
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": self.opset},
            name="draft",
        )
        return ir.Model(graph, ir_version=8)


Write = Callable[[Draft], ir.Value]


def analysed(model: ir.Model, axes: Axes = exactness.FLOAT_AXES) -> tuple[ir.Model, Analysis]:
    copy = model.clone()
    fold_constants(copy)
    return copy, analyse(copy.graph, {copy.graph.inputs[0]: axes})


def worst(model: ir.Model, rng: np.random.Generator, images: int = 4, largest: int = 40) -> float:
    """Relative error of images on a canvas of NaN, infinities and huge numbers, against each alone in the graph as it is."""
    _, analysis = analysed(model)
    assert not analysis.obstacles, [str(obstacle) for obstacle in analysis.obstacles]
    found = geometry(analysis)
    minimum = found.min_height, found.min_width
    sizes = exactness.draw(rng, minimum, max(minimum) + largest, images)
    canvas, extents = exactness.canvas_of(rng, sizes)
    dtype = model.graph.inputs[0].dtype or ir.DataType.FLOAT
    plain, ragged = exactness.session(model), exactness.session(exactness.ragged_floats(model))
    floats = exactness.poisoned(rng, canvas, extents)
    with np.errstate(over="ignore"):
        floats = floats.astype(dtype.numpy())
    rows = []
    for sample, (_, _, height, width) in zip(floats, extents, strict=True):
        rows.append(plain.run(None, {"x": np.ascontiguousarray(sample[None, :, :height, :width])})[0])
    return exactness.error(ragged.run(None, {"x": floats, "extents": extents}), [np.concatenate(rows)])


def obstacles(model: ir.Model) -> list[str]:
    return [str(obstacle) for obstacle in analysed(model)[1].obstacles]

"""Composed reductions and what they are made of give the same numbers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from graphs.anysize.analysis import analyse
from graphs.anysize.decompose import decompose_reductions
from graphs.anysize.domains import Axes, Batch, Cells, Fixed
from graphs.anysize.sizes import Level
from tests.claims import relative_error
from tests.graphs.anysize.tiling import session

AXES: Axes = (Batch(), Fixed(3), Cells(Level("height")), Cells(Level("width")))
SIMPLE = {"ReduceSum", "ReduceMean", "ReduceMax", "Sub", "Exp", "Div", "Mul", "Log", "Add", "Sqrt", "Abs"}


def model(op_type: str, opset: int, *, axes: list[int] | None = None, **attributes: int) -> ir.Model:
    inputs, initializers = ["x"], []
    if axes is not None and opset >= 18:
        inputs.append("axes")
        initializers.append(helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes))
    elif axes is not None:
        attributes["axes"] = axes  # type: ignore[assignment]
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, ["y"], name="composed", **attributes)],
        "one_node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return ir.from_proto(proto)


def decomposed(before: ir.Model) -> ir.Model:
    after = before.clone()
    (x,) = [value for value in after.graph.inputs if value.name == "x"]
    analysis = analyse(after.graph, {x: AXES})
    decompose_reductions(after.graph, {str(v.name): a for v in analysis.domain if (a := analysis.axes(v)) is not None})
    return after


@pytest.mark.parametrize("opset", [11, 17, 20])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceLogSumExp", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_reductions(op_type: str, keepdims: int, opset: int, rng: np.random.Generator) -> None:
    check(model(op_type, opset, axes=[2, -1], keepdims=keepdims), rng)


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op_type: str, rng: np.random.Generator) -> None:
    check(model(op_type, 20), rng)


@pytest.mark.parametrize(("axis", "opset"), [(-1, 11), (3, 13), (2, 20)])
def test_softmax_over_a_side(axis: int, opset: int, rng: np.random.Generator) -> None:
    check(model("Softmax", opset, axis=axis), rng)


def check(before: ir.Model, rng: np.random.Generator) -> None:
    after = decomposed(before)
    assert {node.op_type for node in after.graph} <= SIMPLE
    assert [output.name for output in after.graph.outputs] == ["y"]
    x = (5 * rng.normal(size=(2, 3, int(rng.integers(1, 9)), int(rng.integers(1, 9))))).astype(np.float32)
    expected, got = (session(one).run(None, {"x": x})[0] for one in (before, after))
    assert relative_error(got, expected) <= 1e-6


@pytest.mark.parametrize(
    "before",
    [
        model("Softmax", 20, axis=1),
        model("Softmax", 11, axis=2),  # opsets before 13 take all axes from this one on together
        model("ReduceL2", 20, axes=[1]),
        model("ReduceLogSumExp", 13, axes=[0, 1]),
    ],
)
def test_what_is_not_over_space_stays(before: ir.Model) -> None:
    assert [node.op_type for node in decomposed(before).graph] == [node.op_type for node in before.graph]

"""Constants first: what a graph computes from its weights alone (standardised weights, shapes of kernels) is computed once."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx import defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass

log = logging.getLogger(__name__)

_NOT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
_TYPES = {
    "tensor(bool)": ir.DataType.BOOL,
    "tensor(float)": ir.DataType.FLOAT,
    "tensor(int32)": ir.DataType.INT32,
    "tensor(int64)": ir.DataType.INT64,
    "tensor(uint8)": ir.DataType.UINT8,
}
"""As schemas write them, those of results that have no choice."""

MAX_ENTRIES = 2**28
"""A constant larger than that stays unfolded."""


def fold_constants(model: ir.Model) -> None:
    """Rewrite a model in place: functions inlined, nodes on constants replaced by what they give.

    Before: anything.
    After: every node has an input that depends on the model's inputs, or is one that ONNX's reference evaluator cannot run;
    `Constant` nodes are initializers; every value that has a type in a node's result has one.
    """
    imports = model.graph.opset_imports
    if "ai.onnx" in imports:  # ONNX's own operators by their other name
        imports.setdefault("", imports.pop("ai.onnx"))
    if model.functions:
        InlinePass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    graph = model.graph
    opset = graph.opset_imports.get("", 0)
    for node in list(graph):
        if _constant(node):
            _fold(node, graph, opset)
    RemoveUnusedNodesPass()(model)
    infer_types(graph)


def infer_types(graph: ir.Graph) -> None:
    """Give every value without a type the one that follows from its node, as far as the operator's schema tells."""
    opset = graph.opset_imports.get("", 0)
    for node in graph:
        for index, value in enumerate(node.outputs):
            if value.dtype is None and (dtype := _dtype(node, index, opset)) is not None:
                value.dtype = dtype


def _dtype(node: ir.Node, index: int, opset: int) -> ir.DataType | None:
    """Give the type of an input that must have the same, or the only type that there is; a wrong one makes the graph invalid."""
    op = node.op_type
    if op == "Cast":
        return ir.DataType(node.attributes.get_int("to", int(ir.DataType.FLOAT)))
    if op == "QuantizeLinear" and (len(node.inputs) < 3 or node.inputs[2] is None):
        return ir.DataType(node.attributes.get_int("output_dtype", 0) or int(ir.DataType.UINT8))
    if node.domain not in {"", "ai.onnx"} or not defs.has(op, opset):
        return None
    schema = defs.get_schema(op, opset, "")
    formal = schema.outputs[min(index, len(schema.outputs) - 1)]  # the last may stand for many
    for place, value in enumerate(node.inputs):
        alike = schema.inputs[min(place, len(schema.inputs) - 1)].type_str == formal.type_str
        if alike and value is not None and value.dtype is not None:
            return value.dtype
    return _TYPES.get(next(iter(formal.types))) if len(formal.types) == 1 else None


def _constant(node: ir.Node) -> bool:
    inputs = [value for value in node.inputs if value is not None]
    plain = node.domain in {"", "ai.onnx"} and node.op_type not in _NOT
    graphs = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    plain = plain and not any(attribute.type in graphs for attribute in node.attributes.values())
    return plain and bool(inputs) and all(value.const_value is not None for value in inputs)


def _fold(node: ir.Node, graph: ir.Graph, opset: int) -> None:
    arrays: dict[str, np.ndarray] = {}
    for value in node.inputs:
        if value is not None and value.const_value is not None:
            arrays[value.name or ""] = value.const_value.numpy()
    if sum(array.size for array in arrays.values()) > MAX_ENTRIES:
        return
    outputs = [value.name or "" for value in node.outputs]
    proto = helper.make_graph(
        [ir.to_proto(node)],
        "constant",
        [],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    whole = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)])
    try:
        results = ReferenceEvaluator(whole).run(None, {})
    except Exception as error:  # noqa: BLE001  # whatever it does not know stays in the graph, which is right too
        log.debug("not folded: %s %r: %s", node.op_type, node.name, error)
        return
    for value, result in zip(node.outputs, results, strict=True):
        if not isinstance(result, np.ndarray | np.generic) or value.is_graph_output():
            return
        array = np.asarray(result)
        constant = ir.Value(name=f"{value.name}/folded", const_value=ir.tensor(array, name=f"{value.name}/folded"))
        constant.shape, constant.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        graph.register_initializer(constant)
        value.replace_all_uses_with(constant)

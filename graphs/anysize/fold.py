"""Constants first: what a graph computes from its weights alone (standardised weights, shapes of kernels) is computed once."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass

log = logging.getLogger(__name__)

_NOT = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
MAX_ENTRIES = 2**28
"""A constant larger than that stays unfolded."""


def fold_constants(model: ir.Model) -> None:
    """Rewrite a model in place: functions inlined, nodes on constants replaced by what they give.

    Before: anything.
    After: every node has an input that depends on the model's inputs, or is one that ONNX's reference evaluator cannot run;
    `Constant` nodes are initializers; every value that has a type in a node's result has one.
    """
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
    """Give every value without a type the one that follows from its node: most operators keep that of their first input."""
    for node in graph:
        for index, value in enumerate(node.outputs):
            if value.dtype is None and (dtype := _dtype(node, index)) is not None:
                value.dtype = dtype


def _dtype(node: ir.Node, index: int) -> ir.DataType | None:
    op = node.op_type
    if op == "Cast":
        return ir.DataType(node.attributes.get_int("to", int(ir.DataType.FLOAT)))
    if op in {"Shape", "Size", "ArgMax", "ArgMin", "NonZero"} or (op in {"TopK", "MaxPool"} and index == 1):
        return ir.DataType.INT64
    if op in {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}:
        return ir.DataType.BOOL
    source = {"Where": 1, "CastLike": 1, "DequantizeLinear": 1}.get(op, 0)
    value = node.inputs[source] if source < len(node.inputs) else None
    return None if value is None else value.dtype


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

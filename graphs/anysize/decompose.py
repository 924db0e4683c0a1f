"""Reductions over space that are made of several become those: Softmax, log-sum-exp, norms, global pools.

    Softmax             Sub(x, ReduceMax) → Exp → Div by ReduceSum
    ReduceLogSumExp     ReduceMax + Log(ReduceSum(Exp(x − ReduceMax)))
    ReduceL1, ReduceL2, ReduceSumSquare     ReduceSum of |x|, of x·x; the root of it
    GlobalAveragePool, GlobalMaxPool        ReduceMean, ReduceMax

Only where the axes are over space; a softmax over classes stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Axes
from graphs.anysize.facts import name_of, reduced_axes
from graphs.anysize.found import letter

_COMPOSED = {
    "Softmax",
    "ReduceLogSumExp",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "GlobalAveragePool",
    "GlobalMaxPool",
}


def decompose_reductions(graph: ir.Graph, axes: Mapping[str, Axes]) -> None:
    """Rewrite a graph in place.

    Args:
        graph: any, with names on all values.
        axes: of its values, by name, as far as they are known.
    """
    for node in list(graph):
        if node.op_type in _COMPOSED and name_of(node.inputs[0]) in axes:
            _Rewrite(graph, node, axes).apply()


class _Rewrite:
    def __init__(self, graph: ir.Graph, node: ir.Node, axes: Mapping[str, Axes]) -> None:
        self.graph, self.node = graph, node
        source = node.inputs[0]
        assert source is not None
        self.source, self.own = source, axes[name_of(source)]
        rank = len(self.own)
        if node.op_type == "Softmax":
            self.axes: tuple[int, ...] = (node.attributes.get_int("axis", -1) % rank,)
        elif node.op_type.startswith("Global"):
            self.axes = tuple(range(2, rank))
        else:
            self.axes = reduced_axes(node, rank)
        self.keepdims = 1 if node.op_type == "Softmax" else node.attributes.get_int("keepdims", 1)
        self.version = graph.opset_imports.get("", 1)

    def op(self, op_type: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        node = ir.node(op_type, inputs, attributes or None)
        output = node.outputs[0]
        node.name = output.name = f"{name_of(self.node.outputs[0])}/{op_type}_{len(self.graph)}"
        output.type = self.source.type
        self.graph.insert_before(self.node, node)
        return output

    def reduce(self, op_type: str, source: ir.Value, keepdims: int) -> ir.Value:
        as_attribute = self.version < 13 if op_type == "ReduceSum" else self.version < 18
        if as_attribute:
            return self.op(op_type, source, axes=list(self.axes), keepdims=keepdims)
        axes = ir.val(f"{name_of(self.node.outputs[0])}/{op_type}_axes_{len(self.graph)}")
        axes.const_value = ir.tensor(np.array(self.axes, np.int64), name=axes.name)
        axes.dtype, axes.shape = ir.DataType.INT64, ir.Shape([len(self.axes)])
        self.graph.register_initializer(axes)
        return self.op(op_type, source, axes, keepdims=keepdims)

    def apply(self) -> None:
        if not any(letter(self.own[axis]) for axis in self.axes):
            return
        if self.node.op_type == "Softmax" and self.version < 13 and self.axes[0] != len(self.own) - 1:
            return  # over all axes from this one on, in those days
        op_type, x = self.node.op_type, self.source
        if op_type == "GlobalAveragePool":
            new = self.reduce("ReduceMean", x, 1)
        elif op_type == "GlobalMaxPool":
            new = self.reduce("ReduceMax", x, 1)
        elif op_type == "ReduceL1":
            new = self.reduce("ReduceSum", self.op("Abs", x), self.keepdims)
        elif op_type in {"ReduceL2", "ReduceSumSquare"}:
            new = self.reduce("ReduceSum", self.op("Mul", x, x), self.keepdims)
            if op_type == "ReduceL2":
                new = self.op("Sqrt", new)
        else:
            top = self.reduce("ReduceMax", x, 1)
            weight = self.op("Exp", self.op("Sub", x, top))
            if op_type == "Softmax":
                new = self.op("Div", weight, self.reduce("ReduceSum", weight, 1))
            else:
                total = self.op("Log", self.reduce("ReduceSum", weight, self.keepdims))
                new = self.op("Add", self.reduce("ReduceMax", x, self.keepdims), total)
        old = self.node.outputs[0]
        new.shape = old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name, old.name = old.name, None
        self.graph.remove(self.node, safe=True)

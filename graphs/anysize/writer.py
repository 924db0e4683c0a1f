"""Writes nodes into a graph that is there, in the form that its opset has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

Attribute = int | float | str | Sequence[int]

AXES_AS_INPUT = {"Unsqueeze": 13, "Squeeze": 13, "ReduceSum": 13, "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18}
"""Opset from which an operator takes its axes as an input."""

INTEGER_EXTREMES = 12
"""Opset from which Min and Max take integers."""


class Writer:
    """Adds nodes and constants to one graph.

    Attributes:
        graph: the graph.
        opset: of ONNX's own operators, >= 11.
        top: nodes are put before this one, in the order of writing, unless `after` says otherwise.
    """

    def __init__(self, graph: ir.Graph, prefix: str = "anysize") -> None:
        self.graph = graph
        self.opset = graph.opset_imports.get("", 0)
        self.top = graph[0]
        self._prefix = prefix
        self._written = 0
        self._taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def constant(self, array: np.ndarray) -> ir.Value:
        """Put an array into the graph, once."""
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            name = self._name("constant")
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            value.shape = ir.Shape(array.shape)
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def integers(self, *numbers: int) -> ir.Value:
        """Put a list of int64 into the graph."""
        return self.constant(np.array(numbers, np.int64))

    def integer(self, number: int) -> ir.Value:
        """Put one int64 into the graph."""
        return self.constant(np.array(number, np.int64))

    def op(
        self, kind: str, operands: Sequence[ir.Value | None], *, after: ir.Node | None = None, **attributes: Attribute
    ) -> ir.Value:
        """Add a node of one output, before `top` or right after another node."""
        node = ir.node(kind, list(operands), attributes, name=self._name(kind))
        node.outputs[0].name = node.name
        if after is None:
            self.graph.insert_before(self.top, node)
        else:
            self.graph.insert_after(after, node)
        return node.outputs[0]

    def along(
        self, kind: str, value: ir.Value, axes: Sequence[int], *, after: ir.Node | None = None, **attributes: Attribute
    ) -> ir.Value:
        """Add an operator of AXES_AS_INPUT."""
        if self.opset >= AXES_AS_INPUT[kind]:
            return self.op(kind, [value, self.integers(*axes)], after=after, **attributes)
        return self.op(kind, [value], after=after, axes=list(axes), **attributes)

    def not_after(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Compare left <= right, of int64."""
        if self.opset >= 12:
            return self.op("LessOrEqual", [left, right])
        return self.op("Not", [self.op("Greater", [left, right])])

    def smaller(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Give the smaller of two, entry by entry, of int64."""
        if self.opset >= INTEGER_EXTREMES:
            return self.op("Min", [left, right])
        return self.op("Where", [self.op("Less", [left, right]), left, right])

    def larger(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Give the larger of two, entry by entry, of int64."""
        if self.opset >= INTEGER_EXTREMES:
            return self.op("Max", [left, right])
        return self.op("Where", [self.op("Less", [left, right]), right, left])

    def _name(self, kind: str) -> str:
        name = ""
        while not name or name in self._taken:
            name = f"{self._prefix}/{kind}_{self._written}"
            self._written += 1
        self._taken.add(name)
        return name

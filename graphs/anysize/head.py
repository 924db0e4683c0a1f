"""The head: what a graph does once its reductions over space are known."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphs.anysize.facts import name_of, reduced_axes
from graphs.anysize.found import Found, Reduction
from graphs.anysize.masks import Masks
from graphs.anysize.scales import write_sum
from graphs.anysize.sizes import product
from graphs.anysize.states import State


def cut_head(
    graph: ir.Graph, found: Found, states: tuple[State, ...], inputs: Sequence[ir.Value], masks: Masks
) -> None:
    """Turn a graph into a head, in place; unused nodes are left in it.

    Args:
        graph: the same graph as the trunk was cut from.
        found: without obstacles.
        states: of the trunk, one a reduction.
        inputs: what the graph is to take: EXTENTS, and the states' arrays.
        masks: of the graph, for numbers.
    """
    _Head(graph, found, inputs, masks).cut(states)


class _Head:
    def __init__(self, graph: ir.Graph, found: Found, inputs: Sequence[ir.Value], masks: Masks) -> None:
        self.graph, self.found, self.masks, self.writer = graph, found, masks, masks.writer
        self.values = {name_of(value): value for node in graph for value in node.outputs if value.name}
        self.values.update(graph.initializers)
        self.inputs = {name_of(value): value for value in inputs}

    def cut(self, states: tuple[State, ...]) -> None:
        for reduction, state in zip(self.found.reductions, states, strict=True):
            arrays = [self.inputs[name] for name in state.names]
            old = self.values[reduction.output]
            if state.rule in {"max", "min", "topk"}:
                new = arrays[0]
            else:
                total = self.whole(reduction, state, arrays)
                new = self.writer.op("Cast", [total], to=int(old.dtype or ir.DataType.FLOAT))
            if old.is_graph_output():
                new = self.writer.op("Identity", [new])
                old.name, new.name = None, old.name
            new.shape = old.shape if old.shape is not None else new.shape
            new.type = old.type or new.type or ir.TensorType(ir.DataType.FLOAT)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            self.values[reduction.output] = new
        self.graph.inputs.clear()
        self.graph.inputs.extend(self.inputs.values())
        self.graph.sort()

    def whole(self, reduction: Reduction, state: State, arrays: list[ir.Value]) -> ir.Value:
        """Give a sum over the whole image: its scale brought to the image's, what tiles left out applied."""
        total = arrays[-1]
        if reduction.centre is not None and reduction.kind == "mean":
            total = self.divided(total, reduction)
        if reduction.form.logs:
            lacks = self.writer.op("Sub", [arrays[0], write_sum(reduction.form.logs, self.writer, self.values)])
            total = self.writer.op("Mul", [total, self.writer.op("Exp", [lacks])])
        for how, factor in reduction.form.factors:
            total = self.writer.op(how, [total, factor.emit(self.writer, self.values)])
        return total

    def divided(self, total: ir.Value, reduction: Reduction) -> ir.Value:
        node = self.values[reduction.output].producer()
        assert node is not None
        axes = self.found.axes[reduction.source]
        every = reduced_axes(node, len(axes))
        count = product([axes[axis].count for axis in every])
        rank = len(axes) if node.attributes.get_int("keepdims", 1) else len(axes) - len(every)
        counts = self.masks.spread(self.masks.number(count), rank, 0)
        counts = self.writer.op("Cast", [counts], to=int(ir.DataType.DOUBLE))
        return self.writer.op("Div", [total, counts])

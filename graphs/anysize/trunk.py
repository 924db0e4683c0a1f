"""The trunk: a graph over space whose reductions become partial states of the cells that a tile owns."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Axes, Fixed, cells_of
from graphs.anysize.facts import name_of, reduced_axes
from graphs.anysize.found import Found, Reduction
from graphs.anysize.ownership import Ownership
from graphs.anysize.scales import write_sum
from graphs.anysize.sizes import product
from graphs.anysize.states import State

FLOAT, DOUBLE = int(ir.DataType.FLOAT), int(ir.DataType.DOUBLE)
_NOTHING = {"sum": 0.0, "mean": 0.0, "max": -np.inf, "min": np.inf}


def cut_trunk(graph: ir.Graph, found: Found, owned: Ownership) -> tuple[State, ...]:
    """Turn a graph into a trunk, in place; unused nodes are left in it.

    What it computes of the whole image becomes what it computes of the tile's own cells: a maximum over them, a sum over them,
    a mean's sum divided by the cells of the whole image. Sums are float64 but for those along a row.

    Args:
        graph: with the values that `found` names, and what looks at neighbours filled already.
        found: without obstacles.
        owned: masks of the graph.

    Returns:
        The states, whose arrays are the graph's outputs now.
    """
    return _Trunk(graph, found, owned).cut()


class _Trunk:
    def __init__(self, graph: ir.Graph, found: Found, owned: Ownership) -> None:
        self.graph, self.found, self.owned, self.writer = graph, found, owned, owned.writer
        self.values = {name_of(value): value for node in graph for value in node.outputs if value.name}
        self.values.update(graph.initializers)
        self.outputs: dict[str, ir.Value] = {}
        self.counts: dict[Axes, ir.Value] = {}
        # Means that values are centred with; in float64 once they are written.
        means = (reduction.centre.base for reduction in found.reductions if reduction.centre is not None)
        self.centres = {name: self.values[name] for name in means}
        # Names of what each node takes, before anything is dropped: a window that a tile does without is in the axes of one.
        self.sources = {name: [name_of(v) for v in node.inputs if v is not None] for name, node in self.producers()}

    def producers(self) -> list[tuple[str, ir.Node]]:
        """Give every reducing node by the name of its output."""
        names = [name for reduction in self.found.reductions for name in reduction.nodes]
        return [(name, node) for name in names if (node := self.values[name].producer()) is not None]

    def cut(self) -> tuple[State, ...]:
        """Rewrite the graph, and give the states."""
        self.graph.outputs.clear()
        for name, index in self.found.dropped.items():
            value = self.values[name]
            node = value.producer()
            assert node is not None
            source = node.inputs[index]
            assert source is not None
            value.replace_all_uses_with(source)
        sums: list[tuple[Reduction, ir.Value]] = []
        done: set[str] = set()  # the bins of a pyramid share their rows
        for reduction in self.found.reductions:
            for name in reduction.nodes[:-1]:
                if name not in done:
                    self.reduce(name, reduction, last=False)
                done.add(name)
            sums.append((reduction, self.reduce(reduction.output, reduction, last=True)))
        for name, index in self.found.divisors:
            self.guard(name, index)
        states = [self.state(f"state{place}", reduction, total) for place, (reduction, total) in enumerate(sums)]
        self.graph.outputs.extend(self.outputs.values())
        self.graph.sort()
        return tuple(states)

    def owned_only(self, value: ir.Value, name: str, nothing: float, over: tuple[int, ...]) -> ir.Value:
        """Give a value with `nothing` in the cells that are not the tile's own. NaN outside must not come through: no Mul."""
        mask = self.owned.mask(self.found.axes[name], over)
        kept = self.writer.op("Where", [mask, value, self.like(nothing, value)])
        kept.type = value.type
        return kept

    def like(self, number: float, value: ir.Value) -> ir.Value:
        dtype = np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())
        if dtype.kind == "b":
            number = number > 0
        elif dtype.kind in "iu" and np.isinf(number):
            number = np.iinfo(dtype).max if number > 0 else np.iinfo(dtype).min
        return self.writer.constant(np.array(number, dtype))

    def cast(self, value: ir.Value, dtype: int) -> ir.Value:
        return self.writer.op("Cast", [value], to=dtype)

    def reduce(self, name: str, reduction: Reduction, *, last: bool) -> ir.Value:
        """Reduce the tile's own cells; give the state's array, and the graph the tile's own result."""
        output = self.values[name]
        node = output.producer()
        assert node is not None
        if node.op_type == "MatMul":
            return self.contract(node)
        source = node.inputs[0]
        assert source is not None
        key = self.sources[name][0]
        axes = self.found.axes[key]
        if reduction.kind == "topk":
            return self.top_k(node, source, key, reduction)
        every = reduced_axes(node, len(axes))
        over = tuple(axis for axis in every if cells_of(axes[axis]))
        kept = self.owned_only(source, key, _NOTHING[reduction.kind], over)
        if reduction.kind in {"max", "min"}:
            node.replace_input_with(0, kept)
            return output
        keepdims = node.attributes.get_int("keepdims", 1)
        rank = len(axes) if keepdims else len(axes) - len(every)
        if last and len(over) == 2 and name not in self.centres:  # each row in float32, the rows in float64
            kept = self.total(self.cast(kept, FLOAT), over[1:], keepdims=1)
        total = self.total(self.cast(kept, DOUBLE if last else FLOAT), every, keepdims)
        own = whole = total
        if reduction.kind == "mean":
            own = self.divide(total, self.count(axes, over), rank)  # but for channels: own is a reference, of any scale
            whole = self.divide(total, self.owned.number(product([axes[axis].count for axis in every])), rank)
        # The parts of a mean over one axis are parts of the whole image's already when the other is reduced.
        self.replace(output, own if last else whole)
        if (
            name in self.centres
        ):  # rounded to float32 it would be what the tile's cells were centred with, not their mean
            self.centres[name] = own
        return total if reduction.centre is not None else whole

    def divide(self, total: ir.Value, count: ir.Value, rank: int) -> ir.Value:
        """Divide by a number a sample, in float64."""
        counts = self.cast(self.owned.spread(count, rank, 0), DOUBLE)
        return self.writer.op("Div", [self.cast(total, DOUBLE), counts])

    def contract(self, node: ir.Node) -> ir.Value:
        """Sum over the tile's own positions in a product: what is not its own is 0 in every factor.

        In float64: what is the same at all positions, as the empty ground of a picture, makes a sum in float32 drift.
        """
        factors = []
        for value, key in zip(node.inputs, self.sources[name_of(node.outputs[0])], strict=True):
            assert value is not None
            axes = self.found.axes[key]
            over = tuple(axis for axis, kind in enumerate(axes) if cells_of(kind))
            factors.append(self.cast(self.owned_only(value, key, 0.0, over) if over else value, DOUBLE))
        total = self.writer.op("MatMul", factors)
        self.replace(node.outputs[0], total)
        return total

    def top_k(self, node: ir.Node, source: ir.Value, key: str, reduction: Reduction) -> ir.Value:
        """Take the k of the tile's own cells, and nothing (±∞) where it has fewer; a canvas may even have fewer than k."""
        axes, k = self.found.axes[key], node.inputs[1]
        assert k is not None
        assert k.const_value is not None
        nothing = -np.inf if reduction.largest else np.inf
        kept = self.owned_only(source, key, nothing, (reduction.axis,))
        pads = np.zeros(2 * len(axes), np.int64)
        pads[len(axes) + reduction.axis] = int(k.const_value.numpy().reshape(()))
        padded = self.writer.op("Pad", [kept, self.writer.constant(pads), self.like(nothing, source)])
        node.replace_input_with(0, padded)
        return node.outputs[0]

    def count(self, axes: Axes, over: tuple[int, ...]) -> ir.Value:
        """Count the tile's own cells: float64 (N,)."""
        key = tuple(axes[axis] for axis in over)
        if key not in self.counts:
            mask = self.cast(self.owned.mask(axes, over), DOUBLE)
            every = tuple(range(1, len(axes)))
            self.counts[key] = self.total(mask, every, keepdims=0)
        return self.counts[key]

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every user of a reduced value take the tile's own, in the value's own dtype."""
        dtype = old.dtype or ir.DataType.FLOAT
        result = self.cast(new, int(dtype))
        result.shape, result.dtype = old.shape, dtype
        old.replace_all_uses_with(result)
        self.values[name_of(old)] = result

    def guard(self, name: str, index: int) -> None:
        """Let a tile whose maximum is 0 divide by 1: all it divides is 0, and 0/0 would not be."""
        value = self.values[name]
        node = value.producer()
        assert node is not None
        divisor = node.inputs[index]
        assert divisor is not None
        is_zero = self.writer.op("Equal", [divisor, self.like(0, divisor)])
        node.replace_input_with(index, self.writer.op("Where", [is_zero, self.like(1, divisor), divisor]))

    def state(self, name: str, reduction: Reduction, total: ir.Value) -> State:
        """Write what a reduction gives of a tile, beside its result: the scale it has, or the mean it was centred with."""
        if reduction.kind == "topk":
            return State("topk", self.give(name, reduction, top=total), reduction.axis, reduction.largest)
        if reduction.kind in {"max", "min"}:
            return State("max" if reduction.kind == "max" else "min", self.give(name, reduction, extreme=total))
        if reduction.centre is not None:
            axes = self.found.axes[self.sources[reduction.output][0]]
            over = tuple(axis for axis, kind in enumerate(axes) if cells_of(kind))
            mean = reduction.centre.emit(self.writer, {**self.values, **self.centres})
            names = self.give(name, reduction, count=self.count(axes, over), mean=mean, squares=total)
            return State("comoments" if reduction.outer else "moments", names)
        if reduction.form.logs:
            log = write_sum(reduction.form.logs, self.writer, self.values)
            return State("exponential", self.give(name, reduction, log=log, sum=total))
        return State("sum", self.give(name, reduction, sum=total))

    def give(self, name: str, reduction: Reduction, **arrays: ir.Value) -> tuple[str, ...]:
        """Make values outputs of the trunk."""
        axes = self.found.axes.get(reduction.output, ())
        names = []
        for role, value in arrays.items():
            output = self.writer.op("Identity", [value])
            # A scale or a mean may have fewer channels than the sum, but has its rank.
            sizes = [a.size if isinstance(a, Fixed) and role not in {"log", "mean"} else None for a in axes[1:]]
            output.name, output.shape = f"{name}_{role}", ir.Shape(["batch", *(() if role == "count" else sizes)])
            summed = reduction.kind in {"sum", "mean"}
            output.type = ir.TensorType(ir.DataType.DOUBLE if summed else value.dtype or ir.DataType.FLOAT)
            self.outputs[output.name] = output
            names.append(output.name)
        return tuple(names)

    def total(self, value: ir.Value, axes: tuple[int, ...], keepdims: int) -> ir.Value:
        return self.writer.along("ReduceSum", value, axes, keepdims=keepdims)

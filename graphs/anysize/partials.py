"""Which reductions over space a graph ends in, and whether tiles can give them: one walk over the graph, nothing changed.

Every value is one of: a constant; a number from a tensor's shape; a value over space, with what it lacks in a tile
(scales.py, arithmetic.py); a reduced value.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace

import onnx_ir as ir

from graphs.anysize.arithmetic import change_layout, combine
from graphs.anysize.domains import Axes, cells_of
from graphs.anysize.facts import name_of, product_labels, reduced_axes
from graphs.anysize.found import LAYOUT, Form, Found, Kind, Partly, Reduction, Stop
from graphs.anysize.plan import EXTENTS, Obstacle
from graphs.anysize.scales import FREE, Scaled, Shifted, Squares

REDUCTIONS: dict[str, Kind] = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min"}
NEIGHBOURS = {"Conv", "MaxPool", "AveragePool", "LpPool", "ConvTranspose", "Pad", "Resize"}


def find_partials(graph: ir.Graph, axes: Mapping[str, Axes], reducing: Set[str]) -> Found:
    """Walk a graph whose reductions are simple (decompose.py).

    Args:
        graph: in topological order, with names on all values.
        axes: of every value whose axes are known, by name.
        reducing: outputs of all nodes that reduce positions, whatever their operator.
    """
    walk = _Walk(graph, axes, reducing)
    for node in graph:
        walk.visit(node)
    for output in graph.outputs:
        last = output.producer()
        if walk.forms.get(output) not in {"reduced", "blocked", "constant"} and last is not None:
            walk.block(last, "gives an output of the graph that is not reduced over space")
    return walk.found


class _Walk:
    def __init__(self, graph: ir.Graph, axes: Mapping[str, Axes], reducing: Set[str]) -> None:
        self.found, self.reducing = Found(axes), reducing
        self.forms: dict[ir.Value, Form] = {
            value: "extent" if value.name == EXTENTS else FREE for value in graph.inputs
        }
        self.forms.update(dict.fromkeys(graph.initializers.values(), "constant"))

    def block(self, node: ir.Node, reason: str) -> None:
        self.found.obstacles.append(Obstacle(node.name or name_of(node.outputs[0]), node.op_type, reason))

    def visit(self, node: ir.Node) -> None:
        forms = [self.forms[value] for value in node.inputs if value is not None]
        form: Form = "blocked"
        if "blocked" not in forms:
            try:
                form = self.form(node, forms)
            except Stop as stop:
                self.block(stop.node or node, str(stop))
        for output in node.outputs:
            self.forms[output] = form

    def form(self, node: ir.Node, forms: list[Form]) -> Form:  # noqa: PLR0911, PLR0912  # one line a case
        op_type = node.op_type
        if op_type in {"Shape", "Size"}:
            return "extent"
        if all(form == "constant" for form in forms):
            return "constant"
        over_space = any(letter for value in node.outputs for letter in self.found.letters(value))
        if all(form in {"constant", "extent"} for form in forms):
            return FREE if over_space else "extent"  # a map of ones is a map
        if all(form in {"constant", "extent", "reduced"} for form in forms):
            if over_space:
                raise self.found.reentry(node)
            return "reduced"
        if op_type in REDUCTIONS:
            return self.reduce(node, forms[0])
        if op_type == "TopK":
            return self.top_k(node, forms[0])
        if op_type == "MatMul":
            labels = product_labels(*(self.found.letters(value) for value in node.inputs))
            kept = [letter for letter in self.found.letters(node.outputs[0]) if letter]
            if len(kept) > len(set(kept)) or (labels.summed and labels.kept):
                raise Stop("relates positions of the map to each other")
            if labels.summed:
                return self.contract(node, forms)
        if name_of(node.outputs[0]) in self.reducing:
            raise Stop("is a reduction over the whole image whose parts do not merge")
        if op_type == "Slice" and self.is_window(node):
            self.found.dropped[name_of(node.outputs[0])] = 0
            return forms[0]
        if op_type in NEIGHBOURS and self.is_window(node):
            raise Stop("looks at neighbours in a part of the map")
        if all(form in ("constant", "extent") or form == FREE for form in forms):
            return FREE
        if op_type == "Concat" and all(isinstance(form, Partly) for form in forms):
            return self.join(node, [form for form in forms if isinstance(form, Partly)])
        if op_type in LAYOUT:
            return change_layout(self.found, node, forms[0])
        return combine(self.found, node, forms)

    def is_window(self, node: ir.Node) -> bool:
        """Whether a node's output is a part of a map, such as a pyramid's bin."""
        axes = self.found.axes.get(name_of(node.outputs[0]), ())
        return any(cells.level.window is not None for axis in axes for cells in cells_of(axis))

    def reduce(self, node: ir.Node, form: Form) -> Form:
        source, kind = node.inputs[0], REDUCTIONS[node.op_type]
        letters = form.letters if isinstance(form, Partly) else self.found.letters(source)
        axes = reduced_axes(node, len(letters))
        over = [axis for axis in axes if letters[axis]]
        if not over:
            if form == FREE:
                return FREE
            raise Stop("reduces channels of a value that a reduction over space has gone into")
        nodes: tuple[str, ...] = (name_of(node.outputs[0]),)
        inner: Form = form
        if isinstance(form, Partly):
            if kind != form.kind:
                raise Stop(f"is another reduction than the {form.kind} over the other axis")
            nodes, inner = form.nodes + nodes, form.form
        if not isinstance(inner, Scaled | Squares):
            raise Stop("reduces a value that another reduction was taken off, which does not merge")
        if kind in {"max", "min"} and inner != FREE:
            raise Stop("is a maximum or minimum of a value that another reduction has gone into, which does not merge")
        if len(over) < len(axes) and inner != FREE:
            raise Stop("reduces channels together with space")
        keeps = bool(node.attributes.get_int("keepdims", 1))
        if not keeps:
            inner = inner.reshaped("Squeeze", axes)
        left = [("" if axis in axes else letter) for axis, letter in enumerate(letters) if keeps or axis not in axes]
        if any(left):
            return Partly(kind, nodes, tuple(left), inner)
        return self.finish(Reduction(kind, nodes[-1], name_of(source), nodes), inner)

    def finish(self, reduction: Reduction, inner: Scaled | Squares) -> Form:
        parts = {"form": inner} if isinstance(inner, Scaled) else {"centre": inner.centre}
        self.found.reductions.append(replace(reduction, **parts))
        return "reduced"

    def join(self, node: ir.Node, parts: list[Partly]) -> Form:
        first, rank = parts[0], len(parts[0].letters)
        axis = node.attributes["axis"].as_int() % rank
        if any((part.kind, part.letters, part.form) != (first.kind, first.letters, FREE) for part in parts):
            raise Stop("joins reductions of several kinds, with an axis of theirs yet to come")
        if first.letters[axis]:
            raise Stop("joins maps along an axis over space")
        return replace(first, nodes=tuple(name for part in parts for name in part.nodes))

    def top_k(self, node: ir.Node, form: Form) -> Form:
        source, k = node.inputs[0], node.inputs[1]
        assert k is not None
        letters = self.found.letters(source)
        axis = node.attributes.get_int("axis", -1) % len(letters)
        if form != FREE or "".join(letters) != "p" or not letters[axis]:
            raise Stop("does not take its k values over all positions of one map")
        if k.const_value is None:
            raise Stop("takes a number k of values that grows with the image, which no state of fixed size holds")
        if node.outputs[1].uses() or node.outputs[1].is_graph_output():
            raise Stop("gives positions, which are not followed")
        name = name_of(node.outputs[0])
        largest = bool(node.attributes.get_int("largest", 1))
        reduction = Reduction("topk", name, name_of(source), (name,), axis=axis, largest=largest)
        self.found.reductions.append(reduction)
        return "reduced"

    def contract(self, node: ir.Node, forms: list[Form]) -> Form:
        name = name_of(node.outputs[0])
        reduction = Reduction("sum", name, name_of(node.inputs[0]), (name,))
        left, right = forms
        if isinstance(left, Scaled) and isinstance(right, Scaled):
            return self.finish(reduction, left * right)
        if isinstance(left, Shifted) and isinstance(right, Shifted):
            mean = self.found.mean_of(left, node.inputs[0])
            if mean is not None and mean is self.found.mean_of(right, node.inputs[1]):
                self.found.reductions.append(replace(reduction, centre=left.offset, outer=True))
                return "reduced"
        raise Stop("sums a value that a reduction over space has gone into, which does not merge")

"""Finds a network's features: the map through which every way from the image to the outputs leads, and where pooling begins.

The rule, by structure alone:

1. A value is a map where its axes are images, channels and the cells of both sides, in the order N,C,h,w or N,h,w,C.
2. It is a waist where no tensor gets past it: whatever is computed before it and used after it goes through it. Numbers that
   are computed from shapes do not count; cut.py brings them to the other side. Before the first layer with weights there are
   pixels, however they were scaled, and no features.
3. The features are the last waist, less what belongs to the pooling: from there backwards, |x|, powers, roots, exponentials,
   a square x·x, one factor right before an exponential, a product with weights of sum 1 over the cells (attention's), and a
   floor at a tiny number above 0 (GeM's).
   Activations and normalisations stay with the backbone; a pooling that scores or weighs cells branches off behind the waist.
4. A floor right behind a convolution, a normalisation or a sum has taken an activation's place (exporters fuse ReLU and GeM's
   floor to one Clip): the features are then max(x, 0) of what the floor is given, which the floor does not tell from x.

A card's `features` names another map of the graph, which must be a waist, too.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from graphs.anysize.analysis import Analysis
from graphs.anysize.attention import is_normalised
from graphs.anysize.domains import Axis, Batch, Cells, Fixed, Numbers, describe
from graphs.anysize.facts import scalar

_TINY = 1e-2
"""A floor above 0 and below this keeps a power or a logarithm finite; an activation's is 0."""

_LINEAR = frozenset({"Conv", "BatchNormalization", "Gemm", "MatMul", "Add", "Sub", "InstanceNormalization"})
"""What a ReLU stands behind."""

_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"}
)

_POOLINGS_OWN = frozenset({"Abs", "Exp", "Pow", "Sqrt", "Log", "Reciprocal", "Identity", "Dropout"})
_EXPONENTIAL = frozenset({"Exp", "ReduceLogSumExp", "Softmax", "LogSoftmax"})


class FeaturesError(ValueError):
    """A network whose features cannot be told from its head; says what stands in the way."""


@dataclass(frozen=True)
class Place:
    """Where a network is cut.

    Attributes:
        value: the map.
        channels_last: whether its axes are N,h,w,C.
        channels: C; None where the analysis does not know it.
        rows: its axis of cells along the height; `first` and `last` say which pixels cell 0 sees.
        columns: the same along the width.
        ceiling: the features are the map clipped to 0 … `ceiling` (rule 4); None: they are the map itself.
    """

    value: ir.Value
    channels_last: bool
    channels: int | None
    rows: Cells
    columns: Cells
    ceiling: float | None = None


def find_features(
    analysis: Analysis, graph: ir.Graph, image: ir.Value, outputs: Iterable[ir.Value], name: str | None = None
) -> Place:
    """Find where a network's features are.

    Args:
        analysis: of the graph.
        graph: in topological order, constants as initializers.
        image: its input.
        outputs: those that the features must lead to.
        name: the card's `features`; None: by the rule above.

    Raises:
        FeaturesError: there are none, or those of that name are none.
    """
    flow = _Flow(analysis, graph, image, set(outputs))
    places = {value: place for value in flow.waists() if (place := _place(analysis, value)) and value is not image}
    if name is not None:
        return _named(analysis, graph, flow, places, name)
    places = {value: place for value, place in places.items() if flow.made[value] >= flow.first_weighted}
    if not places:
        obstacles = "; ".join(map(str, analysis.obstacles))
        raise FeaturesError(
            "there is no map (N,C,h,w) behind its first weights through which every way from the image to the outputs leads"
            + (f"; the compiler could not follow {obstacles}" if obstacles else "")
        )
    return _before_pooling(analysis, places)


class _Flow:
    """Which tensors get from the image to the outputs, and past which nodes.

    Attributes:
        last_use: of each value, the place in the graph's order.
        made: where each value is.
        first_weighted: the first node that the image comes to and that has weights.
    """

    def __init__(self, analysis: Analysis, graph: ir.Graph, image: ir.Value, outputs: set[ir.Value]) -> None:
        self._domain = analysis.domain
        nodes = list(graph)
        wanted: set[ir.Value] = set(outputs)
        for node in reversed(nodes):
            if wanted.intersection(node.outputs):
                wanted.update(self._tensors(node))
        reached = {image}
        self.last_use: dict[ir.Value, int] = {}
        self.made: dict[ir.Value, int] = {image: -1}
        self.first_weighted = len(nodes)
        for place, node in enumerate(nodes):
            came = [value for value in self._tensors(node) if value in reached]
            if not came or not wanted.intersection(node.outputs):
                continue
            if node.op_type in _WEIGHTED:
                self.first_weighted = min(self.first_weighted, place)
            for value in came:
                self.last_use[value] = place
            for value in node.outputs:
                if value in wanted:
                    reached.add(value)
                    self.made[value] = place
        for value in outputs & reached:
            self.last_use[value] = len(nodes)

    def _tensors(self, node: ir.Node) -> Iterator[ir.Value]:
        """A node's inputs that are no numbers from shapes."""
        for value in node.inputs:
            if value is not None and not isinstance(self._domain.get(value), Numbers):
                yield value

    def waists(self) -> list[ir.Value]:
        """Values that nothing gets past, in order. Ancestors stand before a waist and descendants after it, in any order."""
        found = []
        longest = -1  # the last use of anything made so far
        made = sorted(self.made.items(), key=lambda item: item[1])
        for index, (value, place) in enumerate(made):
            end = self.last_use.get(value, -1)
            alone = index + 1 == len(made) or made[index + 1][1] != place
            alone &= index == 0 or made[index - 1][1] != place
            if alone and longest <= place < end:
                found.append(value)
            longest = max(longest, end)
        return found

    def past(self, value: ir.Value) -> ir.Value | None:
        """Something that gets past a value; None where nothing does."""
        place = self.made.get(value, -1)
        for other, made in self.made.items():
            if other is not value and made <= place < self.last_use.get(other, -1):
                return other
        return None


def _place(analysis: Analysis, value: ir.Value) -> Place | None:
    """Read a map's axes; None for what is no map."""
    axes = analysis.axes(value)
    if axes is None or len(axes) != 4 or not isinstance(axes[0], Batch):
        return None
    for channels_last, order in ((False, (1, 2, 3)), (True, (3, 1, 2))):
        channels, rows, columns = (axes[index] for index in order)
        if isinstance(channels, Fixed) and _is_side(rows, "height") and _is_side(columns, "width"):
            assert isinstance(rows, Cells)
            assert isinstance(columns, Cells)
            return Place(value, channels_last, channels.size, rows, columns)
    return None


def _is_side(axis: Axis, side: str) -> bool:
    return isinstance(axis, Cells) and axis.level.side == side and axis.level.window is None


def _before_pooling(analysis: Analysis, places: dict[ir.Value, Place]) -> Place:
    """Step back from the last waist over what belongs to the pooling."""
    value = list(places)[-1]
    factors = 0
    while (node := value.producer()) is not None:
        source = _source(analysis, node)
        if source is None and not factors and all(user.op_type in _EXPONENTIAL for user, _ in value.uses()):
            source, factors = _scaled(node), 1
        if source not in places:
            break
        maker = source.producer()
        if _floor(node) is not None and (_ceiling(node) < math.inf or maker is None or maker.op_type in _LINEAR):
            return replace(places[source], ceiling=_ceiling(node))
        value = source
    return places[value]


def _source(analysis: Analysis, node: ir.Node) -> ir.Value | None:
    """What a node of the pooling's own is computed from; None for a node of the backbone's."""
    inputs = [value for value in node.inputs if value is not None]
    if node.op_type in _POOLINGS_OWN or _floor(node) is not None:
        return inputs[0]
    if node.op_type == "Mul" and inputs[0] is inputs[1]:
        return inputs[0]
    if node.op_type == "Mul":
        weighted = [x for x, weight in (inputs, inputs[::-1]) if is_normalised(analysis, weight)]
        return weighted[0] if weighted else None
    return None


def _scaled(node: ir.Node) -> ir.Value | None:
    """What a node multiplies with, or divides by, a constant."""
    if node.op_type not in {"Mul", "Div"}:
        return None
    variable = [value for value in node.inputs if value is not None and value.const_value is None]
    return variable[0] if len(variable) == 1 else None


def _floor(node: ir.Node) -> float | None:
    """The tiny number above 0 that a node does not let anything fall below; None where it does something else."""
    low = None
    if node.op_type == "Clip":
        low = _bound(node, "min", 1)
    elif node.op_type == "Max" and len(node.inputs) == 2:
        low = scalar(node.inputs[1])
    return low if low is not None and 0 < low <= _TINY else None


def _ceiling(node: ir.Node) -> float:
    high = _bound(node, "max", 2) if node.op_type == "Clip" else None
    return math.inf if high is None or high > 1e30 else high  # exporters write float32's largest


def _bound(node: ir.Node, name: str, index: int) -> float | None:
    """A Clip's bound: an input, before opset 11 an attribute."""
    if name in node.attributes:
        return float(node.attributes[name].as_float())
    return scalar(node.inputs[index]) if len(node.inputs) > index else None


def _named(analysis: Analysis, graph: ir.Graph, flow: _Flow, places: dict[ir.Value, Place], name: str) -> Place:
    """Find the card's features.

    Raises:
        FeaturesError: no such value, no map, or something gets past it.
    """
    values = {value.name: value for node in graph for value in node.outputs if value.name}
    known = [str(value.name) for value in places]
    if name not in values:
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise FeaturesError(f"the card's features: the graph has no value {name!r}; the nearest maps are {nearest}")
    value = values[name]
    if value in places:
        return places[value]
    if _place(analysis, value) is None:
        axes = analysis.axes(value)
        what = "is not known to the compiler" if axes is None else f"has the axes {describe(axes)}"
        raise FeaturesError(f"the card's features: expected a map (N,C,h,w), {name!r} {what}")
    other = flow.past(value)
    way = f"; {other.name!r} gets past it" if other is not None else ""
    raise FeaturesError(f"the card's features: not every way to the outputs leads through {name!r}{way}")

"""What the walk over a graph's last part has found so far, and the questions that its rules ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from graphs.anysize.domains import Axes, Axis, Cells, Fixed, Positions, cells_of
from graphs.anysize.facts import name_of, nonnegative
from graphs.anysize.plan import Obstacle
from graphs.anysize.scales import FREE, Operand, Scale, Scaled, Shifted, Squares

Kind = Literal["sum", "mean", "max", "min", "topk"]
LAYOUT = {"Identity", "Cast", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze"}


class Stop(Exception):  # no error: it carries a reason to the obstacle
    """Why the walk cannot go on behind a node.

    Args:
        reason: a sentence about `node`.
        node: the one to name; None is the node that the walk is at.
    """

    def __init__(self, reason: str, node: ir.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node


@dataclass(frozen=True)
class Reduction:
    """A reduction over space that tiles give in parts.

    Attributes:
        kind: what it does with the cells.
        output: name of the reduced value.
        source: name of the value that the last node reduces.
        nodes: names of the outputs of all its nodes, where axes are reduced in turn; the last is `output`.
        form: what a tile's result lacks, in the shape of the result.
        centre: the mean that was taken off before squaring; None where nothing was.
        outer: whether the squares are products of channels (a MatMul).
        axis: of top-k, in the result.
        largest: of top-k.
    """

    kind: Kind
    output: str
    source: str
    nodes: tuple[str, ...]
    form: Scaled = FREE
    centre: Scale | None = None
    outer: bool = False
    axis: int = -1
    largest: bool = True


@dataclass(frozen=True)
class Partly:
    """A value with some axes over space reduced and others not yet."""

    kind: Kind
    nodes: tuple[str, ...]
    letters: tuple[str, ...]
    form: Scaled | Squares

    def reshaped(self, op_type: str, operand: Operand) -> Partly:
        """Follow a change of layout that leaves the axes over space as they are."""
        return Partly(self.kind, self.nodes, self.letters, self.form.reshaped(op_type, operand))


Form = Literal["constant", "extent", "reduced", "blocked"] | Scaled | Shifted | Squares | Partly


@dataclass
class Found:
    """Reductions, obstacles, and what a tile must do otherwise than the whole image.

    Attributes:
        axes: of every value whose axes are known, by name.
        reductions: in the graph's order.
        obstacles: empty where the graph can be tiled.
        divisors: nodes (name of the output, index of the input) that divide values over space by a tile's own maximum.
        shifts: nodes that take a tile's own reduction off values over space.
        dropped: nodes that a tile leaves out (a factor, a window), by output, with the index of the input that stands for
            them.
    """

    axes: Mapping[str, Axes]
    reductions: list[Reduction] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    divisors: list[tuple[str, int]] = field(default_factory=list)
    shifts: list[tuple[str, int]] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def letters(self, value: ir.Value | None) -> tuple[str, ...]:
        """Give for each axis of a value `y`, `x`, `p` (positions: both sides in one), or nothing."""
        return tuple(letter(axis) for axis in self.axes.get(name_of(value), ()))

    def origins(self, value: ir.Value) -> list[ir.Value]:
        """Find the reductions that a value depends on."""
        outputs = {reduction.output for reduction in self.reductions}
        seen: set[ir.Value] = set()
        waiting, found = [value], []
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            producer = current.producer()
            if current.name in outputs:
                found.append(current)
            elif producer is not None:
                waiting += [v for v in producer.inputs if v is not None]
        return found

    def reentry(self, node: ir.Node) -> Stop:
        """Say which reduction goes back into space at a node, and where."""
        sources = [origin for value in node.inputs if value is not None for origin in self.origins(value)]
        if not sources:
            return Stop("takes what is reduced over the image in part only back into the feature map")
        return Stop(
            "its result, which needs the whole image, goes back into the feature map at "
            f"{node.op_type} {node.name!r}; a tile does not know it",
            sources[0].producer(),
        )

    def mean_of(self, form: Shifted, value: ir.Value | None) -> ir.Value | None:
        """Give the mean that a value was centred with, where that is its own over space; else None.

        Args:
            form: of `value`.
            value: x − r, in whatever layout.
        """
        node = value.producer() if value is not None else None
        while node is not None and node.op_type in LAYOUT:
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        if node is None or node.op_type != "Sub" or form.root != name_of(node.inputs[0]):
            return None
        means = {
            r.output: r
            for r in self.reductions
            if r.kind == "mean" and r.form == FREE and len(r.nodes) == 1 and not r.centre
        }
        mean = node.inputs[1]
        while mean is not None and mean.name not in means:
            producer = mean.producer()
            mean = producer.inputs[0] if producer is not None and producer.op_type in LAYOUT else None
        return mean if mean is not None and means[name_of(mean)].source == form.root else None

    def is_maximum_of_magnitudes(self, value: ir.Value) -> bool:
        """Whether a reduced value is a maximum of values >= 0, perhaps guarded against 0."""
        maxima = {r.output for r in self.reductions if r.kind == "max"}
        origins = self.origins(value)
        return bool(origins) and {o.name for o in origins} <= maxima and nonnegative(value, maxima)

    def scale_of(self, node: ir.Node, index: int) -> Scale:
        """Give the reduced value that enters a node at an input, to be followed along the other input's axes.

        Raises:
            Stop: it does not lie along them.
        """
        value, other = node.inputs[index], node.inputs[1 - index]
        assert value is not None
        letters, axes = self.letters(other), self.axes.get(name_of(value), ())
        if len(axes) != len(letters) or any(
            letter and axis != Fixed(1) for letter, axis in zip(letters, axes, strict=True)
        ):
            raise self.reentry(node)
        return Scale(name_of(value))


def letter(axis: Axis) -> str:
    """Give the letter of an axis: `y`, `x`, `p`, or nothing."""
    if isinstance(axis, Cells):
        return "y" if axis.level.side == "height" else "x"
    return "p" if isinstance(axis, Positions) or cells_of(axis) else ""

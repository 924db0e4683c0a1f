"""Walks a graph and says of every value what its axes mean, where positions are summed or compared, and what it cannot follow.

Nothing is changed. Where a node cannot be followed and positions are at stake, it becomes an obstacle, and what hangs on it
is lost; a node without positions (everything behind the last pooling) needs no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from graphs.anysize.domains import (
    Axes,
    Batch,
    Cells,
    Domain,
    Fixed,
    Lost,
    Numbers,
    Tensor,
    Unknown,
    cells_of,
    is_spatial,
)
from graphs.anysize.numbers import arithmetic, shape, size
from graphs.anysize.plan import Obstacle
from graphs.anysize.rules import Result, follow
from graphs.anysize.sizes import Level
from graphs.anysize.view import View


@dataclass(frozen=True)
class Reduction:
    """A node that sums over positions, or compares them.

    Attributes:
        node: the node.
        sources: its inputs that have the positions, and in each the axes that are reduced, counted from the front.
    """

    node: ir.Node
    sources: tuple[tuple[ir.Value, tuple[int, ...]], ...]


@dataclass
class Analysis:
    """What is known of a graph.

    Attributes:
        domain: of every value.
        reductions: in the order of the graph.
        obstacles: nodes that could not be followed, in the order of the graph.
        opset: of ONNX's own operators.
        sized: inputs (node, index) that are one number computed from height or width, in a pointwise operator on tensors.
        parts: Slice nodes that take a part of the cells that depends on the size.
    """

    domain: dict[ir.Value, Domain]
    opset: int
    reductions: list[Reduction] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    sized: list[tuple[ir.Node, int]] = field(default_factory=list)
    parts: list[ir.Node] = field(default_factory=list)

    def axes(self, value: ir.Value | None) -> Axes | None:
        """Axes of a value; None where they are not known, or where the value is made of numbers from shapes."""
        domain = None if value is None else self.domain.get(value)
        return domain.axes if isinstance(domain, Tensor) else None

    def spatial(self, value: ir.Value | None) -> bool:
        """Whether a value has positions of the image."""
        axes = self.axes(value)
        return axes is not None and is_spatial(axes)

    def levels(self) -> set[Level]:
        """Every level there is, without windows."""
        found = set()
        for domain in self.domain.values():
            if isinstance(domain, Tensor) and domain.axes is not None:
                for axis in domain.axes:
                    found |= {Level(c.level.side, c.level.stride, c.level.offset) for c in cells_of(axis)}
        return found

    def view(self, node: ir.Node) -> View:
        """Give a node as the rules see it."""
        return View(node, self.domain, self.opset)


def pixel_axes(channels: int) -> Axes:
    """Axes of pixels, N,H,W,C."""
    return (Batch(), Cells(Level("height")), Cells(Level("width")), Fixed(channels))


def analyse(graph: ir.Graph, inputs: Mapping[ir.Value, Axes]) -> Analysis:
    """Walk a graph.

    Args:
        graph: in topological order, constants as initializers; not changed.
        inputs: axes of its inputs.

    Returns:
        What is known of it. Every value of the graph is in `domain`.
    """
    analysis = Analysis({}, graph.opset_imports.get("", 0))
    domain = analysis.domain
    for value in graph.initializers.values():
        dims = () if value.shape is None else tuple(value.shape)
        domain[value] = Tensor(tuple(Fixed(dim if isinstance(dim, int) else None) for dim in dims))
    for value in graph.inputs:
        if value in inputs:
            domain[value] = Tensor(inputs[value])
        else:
            domain.setdefault(value, Tensor(None))
    for node in graph:
        operands = [domain[value] for value in node.inputs if value is not None]
        at_stake = any(
            (isinstance(one, Tensor) and one.spatial) or (isinstance(one, Numbers) and one.sized) for one in operands
        )
        if any(isinstance(one, Lost) for one in operands):
            results: list[Domain] = [Lost() for _ in node.outputs]
        else:
            try:
                results = _results(node, analysis, operands)
            except (Unknown, IndexError, ValueError, TypeError) as unknown:  # the latter: a form that no rule expects
                if at_stake:
                    analysis.obstacles.append(Obstacle(node.name or "", node.op_type, str(unknown)))
                results = [Lost() if at_stake else _by_shape(value) for value in node.outputs]
        domain.update(zip(node.outputs, results, strict=True))
    return analysis


def _results(node: ir.Node, analysis: Analysis, operands: list[Domain]) -> list[Domain]:
    view = analysis.view(node)
    if node.domain not in {"", "ai.onnx"}:
        raise Unknown(f"an operator of {node.domain!r}, which is not ONNX's own")
    if any(
        attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS} for attribute in node.attributes.values()
    ):
        raise Unknown("what happens in it depends on values at run time")
    if node.op_type == "Shape":
        return [shape(view)]
    if node.op_type == "Size":
        return [size(view)]
    numbers = [index for index, one in enumerate(node.inputs) if one and isinstance(analysis.domain[one], Numbers)]
    constant = all(
        one is None or one.const_value is not None or isinstance(analysis.domain[one], Numbers) for one in node.inputs
    )
    if numbers and constant:
        try:
            return [arithmetic(view)]
        except Unknown:
            if any(isinstance(one, Numbers) and one.sized for one in operands):
                raise
    result: Result = follow(view)
    for index in result.sized:
        analysis.sized.append((node, index))
    if result.part:
        analysis.parts.append(node)
    if result.reduced:
        for value, axes in result.reduced:
            known = analysis.axes(value)
            if known is None or Batch() not in known:
                raise Unknown("it reduces positions of a value whose images are not along one axis of their own")
            assert axes
        analysis.reductions.append(Reduction(node, result.reduced))
    results: list[Domain] = [Tensor(axes) for axes in result.axes]
    return results + [Tensor(None)] * (len(node.outputs) - len(results))


def _by_shape(value: ir.Value) -> Tensor:
    """What the file says of a value without positions: its fixed sizes."""
    if value.shape is None:
        return Tensor(None)
    return Tensor(tuple(Fixed(dim) if isinstance(dim, int) else Fixed(None) for dim in value.shape))

"""Finds the weights that a head which pools by attention gives each cell: numbers of sum 1, the same for all channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Axes, Batch, Cells, Fixed, Positions

_LAYOUT = frozenset({"Identity", "Cast", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze"})


def weights_of_cells(analysis: Analysis, graph: ir.Graph, sides: Sequence[Cells]) -> ir.Value | None:
    """Find the one value that cells are weighted by before they are added up, the same for all channels.

    It is a factor of a product (Mul, then sums over the cells; or MatMul) whose axes are images and the features' cells, row by
    row, with nothing else; and it is made of sum 1.

    Args:
        analysis: of the graph.
        graph: in topological order.
        sides: the features' rows and columns.

    Returns:
        The weights; None where the head has none, or several.
    """
    summing = {reduction.node for reduction in analysis.reductions}
    found: dict[ir.Value, None] = {}
    for node in graph:
        if node.op_type not in {"Mul", "MatMul"} or not _is_summed(node, summing):
            continue
        for value in node.inputs:
            if value is not None and _is_weights(analysis.axes(value), sides) and is_normalised(analysis, value):
                found[value] = None
    return next(iter(found)) if len(found) == 1 else None


def _is_summed(node: ir.Node, summing: set[ir.Node]) -> bool:
    if node.op_type == "MatMul":
        return node in summing
    users = [user for user, _ in node.outputs[0].uses()]
    return bool(users) and all(user.op_type == "ReduceSum" and user in summing for user in users)


def _is_weights(axes: Axes | None, wanted: Sequence[Cells]) -> bool:
    if axes is None or not axes or not isinstance(axes[0], Batch):
        return False
    rest = [axis for axis in axes[1:] if axis != Fixed(1)]
    sides: list[Cells] = []
    for axis in rest:
        if isinstance(axis, Positions):
            sides += axis.sides
        elif isinstance(axis, Cells):
            sides.append(axis)
        else:
            return False
    return sides == list(wanted)


def is_normalised(analysis: Analysis, value: ir.Value) -> bool:
    """Whether a value is of sum 1 over the cells: a Softmax over all of them, or something divided by its own sum.

    In whatever layout; of each channel by itself, where there are several.
    """
    maker = next((node for node in _back(value) if node.op_type not in _LAYOUT), None)
    if maker is None or not analysis.spatial(value):
        return False
    if maker.op_type == "Softmax":
        taken = [axes for one in analysis.reductions if one.node is maker for _, axes in one.sources]
        known = analysis.axes(maker.inputs[0])
        return bool(taken) and known is not None and all(isinstance(known[axis], Positions) for axis in taken[0])
    if maker.op_type != "Div" or analysis.spatial(maker.inputs[1]):
        return False
    numerator, divisor = maker.inputs
    assert divisor is not None
    for node in _back(divisor):
        if node.op_type not in _LAYOUT | {"ReduceSum"}:
            return False
        if node.inputs[0] is numerator:
            return True
    return False


def _back(value: ir.Value) -> Iterator[ir.Node]:
    """Walk back along the first inputs."""
    node = value.producer()
    while node is not None:
        yield node
        node = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None

"""Shapes that a head takes from values before the cut, computed from the features' shape instead.

Exporters compute a pyramid's bins from the image's own shape. A head has only the features, so it takes the shape of the smallest
image with as many cells, and it is checked that this gives the same numbers wherever they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Axes, Axis, Batch, Cells, Domain, Fixed, Numbers, Positions, Tensor
from graphs.anysize.facts import name_of
from graphs.anysize.features import FeaturesError, Place
from graphs.anysize.sizes import evaluate, sample
from graphs.anysize.writer import Writer


def borrow_shapes(writer: Writer, domain: Mapping[str, Domain], place: Place, features: ir.Value) -> None:
    """Rewrite what a head's outputs need of shapes before the cut, in place.

    Args:
        writer: of the head's graph.
        domain: what is known of every value of the uncut graph, by name.
        place: of the cut.
        features: input of the head, (N,C,h,w).

    Raises:
        FeaturesError: the head asks for more than the features' cells tell.
    """
    needed = sources(writer.graph.outputs)
    for node in {node for value in needed if (node := value.producer()) is not None}:
        if node.op_type not in {"Shape", "Size"} or node.inputs[0] is None:
            continue
        behind = sources([node.inputs[0]])
        if features not in behind and any(value.is_graph_input() for value in behind):
            axes = _axes(node, domain.get(name_of(node.inputs[0])))
            node.outputs[0].replace_all_uses_with(_shape(writer, node, axes, place, features))
    for value in needed:
        known = domain.get(name_of(value))
        used = any(not isinstance(domain.get(name_of(user.outputs[0])), Numbers) for user, _ in value.uses())
        if isinstance(known, Numbers) and known.sized and used:
            _check(value, known, place)


def sources(values: Iterable[ir.Value]) -> list[ir.Value]:
    """Values that others are computed from, themselves among them."""
    seen: dict[ir.Value, None] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in seen:
            seen[value] = None
            node = value.producer()
            waiting += [] if node is None else [one for one in node.inputs if one is not None]
    return list(seen)


def _axes(node: ir.Node, known: Domain | None) -> Axes:
    if not isinstance(known, Tensor) or known.axes is None:
        raise FeaturesError(f"{node.op_type} {node.name!r}: the axes of its input are not known")
    return known.axes


def _shape(writer: Writer, node: ir.Node, axes: Axes, place: Place, features: ir.Value) -> ir.Value:
    """Write what a Shape or Size gives."""
    entries = [_count(writer, axis, place, features) for axis in axes]
    if node.op_type == "Size":
        return writer.op("ReduceProd", [writer.op("Concat", entries, axis=0)], keepdims=0)
    end = node.attributes.get_int("end", None)
    return writer.op("Concat", entries[node.attributes.get_int("start", 0) : end], axis=0)


def _count(writer: Writer, axis: Axis, place: Place, features: ir.Value) -> ir.Value:
    """Write the entries along an axis, int64 (1,)."""
    if isinstance(axis, Positions):
        rows, columns = (_count(writer, side, place, features) for side in axis.sides)
        return writer.op("Mul", [rows, columns])
    if isinstance(axis, Fixed) and axis.size is not None:
        return writer.integers(axis.size)
    shape = writer.op("Shape", [features])
    if isinstance(axis, Batch):
        return writer.op("Gather", [shape, writer.integers(0)], axis=0)
    if isinstance(axis, Cells) and axis.level.window is None:
        level, is_height = axis.level, axis.level.side == "height"
        own = (place.rows if is_height else place.columns).level
        cells = writer.op("Gather", [shape, writer.integers(2 if is_height else 3)], axis=0)
        # Smallest side that has them: (cells − 1)·stride − offset.
        length = writer.op(
            "Sub", [writer.op("Mul", [cells, writer.integers(own.stride)]), writer.integers(own.stride + own.offset)]
        )
        steps = writer.op(
            "Div", [writer.op("Add", [length, writer.integers(level.offset)]), writer.integers(level.stride)]
        )
        return writer.op("Add", [steps, writer.integers(1)])
    raise FeaturesError("the head takes sizes from a value whose axes cannot be told from the features'")


def _check(value: ir.Value, known: Numbers, place: Place) -> None:
    """Compare, at some 3000 sizes, with what the smallest image of as many cells gives.

    Raises:
        FeaturesError: it is something else.
    """
    rows, columns = place.rows.level, place.columns.level
    enough = (sample()["height"] >= rows.minimum) & (sample()["width"] >= columns.minimum)
    sizes = {name: numbers[enough] for name, numbers in sample().items()}
    smallest = {"batch": sizes["batch"]}
    for level in (rows, columns):
        cells = evaluate(level.count(), sizes)
        smallest[level.side] = (cells - 1) * level.stride - level.offset
    for entry in known.entries.flat:
        if not np.array_equal(evaluate(entry, sizes), evaluate(entry, smallest), equal_nan=True):
            raise FeaturesError(f"{value.name!r} is computed from the image's size, which the features do not tell")

"""What Transpose, Reshape, Concat and the like do to the axes of a value: the rules of the analysis for layout."""

from __future__ import annotations

from collections.abc import Callable

from graphs.anysize.domains import (
    Axes,
    Axis,
    Batch,
    Cells,
    Fixed,
    Unknown,
    broadcast,
    describe,
    factor,
    is_spatial,
    joined,
)
from graphs.anysize.sizes import Number, Size, calculate, is_sized, product, same
from graphs.anysize.view import View, place


def transpose(view: View) -> Axes:
    """Permute the axes."""
    axes = view.axes()
    order = view.integers("perm") or tuple(reversed(range(len(axes))))
    return tuple(axes[index] for index in order)


def reshape(view: View) -> Axes:
    """Follow a Reshape to sizes that are constant or computed from shapes."""
    axes = view.axes()
    _refuse_parts(axes)
    sizes: list[Size | Number] = view.numbers(1).ravel().tolist()
    if not view.integer("allowzero", 0):
        sizes = [axes[index].count if size == 0 else size for index, size in enumerate(sizes)]
    if -1 in [size for size in sizes if isinstance(size, int)]:
        rest = [size for size in sizes if size != -1]
        whole = product([axis.count for axis in axes])
        sizes = [calculate("IntegerDiv", whole, product(rest)) if size == -1 else size for size in sizes]
    return factor(sizes, axes)


def flatten(view: View) -> Axes:
    """Follow a Flatten into two axes."""
    axes = view.axes()
    _refuse_parts(axes)
    at = view.integer("axis", 1)
    at = at + len(axes) if at < 0 else at
    return factor([product([axis.count for axis in part]) for part in (axes[:at], axes[at:])], axes)


def squeeze(view: View) -> Axes:
    """Take axes of one entry away."""
    axes = view.axes()
    listed = view.listed("axes", 1)
    if listed is None:
        if is_spatial(axes):
            raise Unknown("it takes away every axis of 1, which may be one of the map's at some sizes")
        return tuple(axis for axis in axes if axis != Fixed(1))
    gone = {place(axis, len(axes)) for axis in listed}
    if any(axes[index] != Fixed(1) for index in gone):
        raise Unknown(f"it squeezes {describe(axes)} along {sorted(gone)}")
    return tuple(axis for index, axis in enumerate(axes) if index not in gone)


def unsqueeze(view: View) -> Axes:
    """Add axes of one entry."""
    axes = list(view.axes())
    listed = view.listed("axes", 1) or ()
    rank = len(axes) + len(listed)
    for index in sorted(place(axis, rank) for axis in listed):
        axes.insert(index, Fixed(1))
    return tuple(axes)


def concat(view: View) -> Axes:
    """Follow a Concat of channels."""
    operands = [view.axes(index) for index in range(len(view.node.inputs))]
    rank = len(operands[0])
    at = place(view.integer("axis", 0), rank)
    if len(operands) > 1 and not all(isinstance(axes[at], Fixed) for axes in operands):
        raise Unknown(f"it joins maps along {describe((operands[0][at],))}")
    result: list[Axis] = []
    for index in range(rank):
        axis = operands[0][index]
        for other in operands[1:]:
            axis = axis if index == at else joined(axis, other[index])
        result.append(axis)
    sizes = [axes[at].count for axes in operands]
    whole = product([1]) if not sizes else sizes[0]
    for size in sizes[1:]:
        whole = calculate("Add", whole, size)
    if len(operands) > 1:
        result[at] = Fixed(int(whole)) if isinstance(whole, int) else Fixed(None)
    return tuple(result)


def split(view: View) -> tuple[Axes, ...]:
    """Follow a Split of channels."""
    axes, outputs = view.axes(), len(view.node.outputs)
    at = place(view.integer("axis", 0), len(axes))
    axis = axes[at]
    sizes = view.listed("split", 1)
    if not isinstance(axis, Fixed) or axis.size is None:
        raise Unknown(f"it cuts {describe((axis,))}")
    if sizes is None:
        chunk = -(-axis.size // outputs)
        sizes = tuple(min(chunk, axis.size - index * chunk) for index in range(outputs))
    return tuple((*axes[:at], Fixed(size), *axes[at + 1 :]) for size in sizes)


def gather(view: View) -> Axes:
    """Follow a Gather of channels by constant indices."""
    axes, picked = view.axes(), view.axes(1)
    at = place(view.integer("axis", 0), len(axes))
    if not isinstance(axes[at], Fixed) or is_spatial(picked):
        raise Unknown(f"it picks entries of {describe((axes[at],))}")
    return (*axes[:at], *picked, *axes[at + 1 :])


def expand(view: View) -> Axes:
    """Follow an Expand, also over all cells of a map."""
    axes = view.axes()
    targets = view.numbers(1).ravel().tolist()
    axes = (Fixed(1),) * (len(targets) - len(axes)) + axes
    targets = [1] * (len(axes) - len(targets)) + targets
    result: list[Axis] = []
    for axis, target in zip(axes, targets, strict=True):
        if target == 1 or (axis != Fixed(1) and same(axis.count, target)):
            result.append(axis)
        elif axis == Fixed(1) and isinstance(target, int):
            result.append(Fixed(target))
        elif axis == Fixed(1):
            result.append(_over(target, view))
        else:
            raise Unknown(f"it expands {describe(axes)} in a way that cannot be followed")
    return tuple(result)


def _over(target: Size | Number, view: View) -> Axis:
    """Give the axis that has so many entries."""
    if same(target, Batch().count):
        return Batch()
    found = [cells for cells in view.known_cells() if cells.level.window is None and same(cells.count, target)]
    if not found or not is_sized(target):
        raise Unknown("it expands to a size that is no map's")
    return found[0]


def matmul_axes(view: View) -> tuple[Axes, tuple[Axis, Axis]]:
    """Axes of a MatMul, and the two axes that it sums over.

    Raises:
        Unknown: axes that do not fit.
    """
    left, right = view.axes(0), view.axes(1)
    if len(left) < 2 or len(right) < 2:
        raise Unknown("it multiplies by a vector")
    joined(left[-1], right[-2])
    return (*broadcast([left[:-2], right[:-2]]), left[-2], right[-1]), (left[-1], right[-2])


def gemm_axes(view: View) -> tuple[Axes, tuple[Axis, Axis]]:
    """Axes of a Gemm, and the two axes that it sums over.

    Raises:
        Unknown: axes that do not fit.
    """
    left, right = view.axes(0), view.axes(1)
    if len(left) != 2 or len(right) != 2:
        raise Unknown(f"it multiplies {describe(left)} by {describe(right)}")
    left = left[::-1] if view.integer("transA", 0) else left
    right = right[::-1] if view.integer("transB", 0) else right
    if is_spatial((left[1], right[0])):
        raise Unknown(
            f"a fully connected layer over {describe((left[1],))}: its weights are of one map's size, "
            "other sizes have no answer"
        )
    return (left[0], right[1]), (left[1], right[0])


def _refuse_parts(axes: Axes) -> None:
    if any(isinstance(axis, Cells) and axis.level.window is not None for axis in axes):
        raise Unknown("it reshapes a part of the map")


LAYOUTS: dict[str, Callable[[View], Axes]] = {
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Gather": gather,
    "Expand": expand,
}

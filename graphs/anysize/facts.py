"""Facts about single nodes that need no more than the node: names, constants, axes, labels of products, signs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir


def name_of(value: ir.Value | None) -> str:
    """Give a value's name; every value of a graph has one."""
    assert value is not None
    assert value.name is not None
    return value.name


def scalar(value: ir.Value | None) -> float | None:
    """Give a constant of one number; None for anything else."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(()))


def constant_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Read axes from the attribute or the second input; None where they are not constant or not given."""
    if "axes" in node.attributes:
        return tuple(node.attributes["axes"].as_ints())
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = node.inputs[1].const_value
        return None if axes is None else tuple(int(axis) for axis in axes.numpy().ravel())
    return None


def reduced_axes(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Give the axes that a Reduce… node reduces, >= 0, in order; all where it says none."""
    axes = constant_axes(node)
    if not axes:
        return () if node.attributes.get_int("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in axes))


@dataclass(frozen=True)
class Labels:
    """Letters of the axes over space of a product of matrices: those that it sums, and those that it keeps."""

    summed: tuple[str, ...]
    kept: tuple[str, ...]


def product_labels(left: tuple[str, ...], right: tuple[str, ...]) -> Labels:
    """Say which axes over space a MatMul sums.

    Args:
        left: letters of the first factor's axes, nothing for an axis that is not over space.
        right: of the second's.
    """
    if len(left) < 2 or len(right) < 2:  # a vector
        return Labels((), tuple(letter for letter in (*left, *right) if letter))
    return Labels(
        tuple(letter for letter in (left[-1], right[-2]) if letter),
        tuple(letter for letter in (*left[:-1], *right[:-2], right[-1]) if letter),
    )


def nonnegative(value: ir.Value, maxima: set[str]) -> bool:  # noqa: PLR0911  # one line a case
    """Whether no element of a value can be below 0, as far as its operators tell.

    Args:
        value: any.
        maxima: names of values that are maxima; those of values >= 0 are >= 0.
    """
    number = value.const_value
    if number is not None:
        return bool((number.numpy() >= 0).all())
    node = value.producer()
    if node is None:
        return False
    first = node.inputs[0]
    if node.op_type in {"Abs", "Relu", "Exp", "Sigmoid", "Sqrt", "ReduceL1", "ReduceL2", "ReduceSumSquare"}:
        return True
    if node.op_type == "Clip":
        low = scalar(node.inputs[1]) if len(node.inputs) > 1 else None
        return low is not None and low >= 0
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return True
    if node.op_type == "Cast" and first is not None:
        return first.dtype == ir.DataType.BOOL or nonnegative(first, maxima)
    if node.op_type == "Max":
        return any(v is not None and nonnegative(v, maxima) for v in node.inputs)
    if node.op_type == "Add" or name_of(value) in maxima or node.op_type in {"Concat", "Where"}:
        parts = node.inputs[1:] if node.op_type == "Where" else node.inputs
        parts = parts[:1] if name_of(value) in maxima else parts
        return all(v is not None and nonnegative(v, maxima) for v in parts)
    if node.op_type in {"Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Gather", "Slice"}:
        return first is not None and nonnegative(first, maxima)
    return False

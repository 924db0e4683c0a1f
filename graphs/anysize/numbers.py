"""The rules of the analysis for what is computed from shapes: Shape, and the arithmetic after it, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Numbers, Unknown
from graphs.anysize.sizes import Number, Size, calculate, product
from graphs.anysize.view import View, place

_BINARY = {"Add", "Sub", "Mul", "Max", "Min", "Div", "Mod", "Pow"}
_UNARY = {"Neg", "Abs", "Sqrt", "Reciprocal", "Log", "Exp", "Floor", "Ceil"}
_REAL = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


def shape(view: View) -> Numbers:
    """Give the entries of a Shape."""
    counts = [axis.count for axis in view.axes()]
    end = view.node.attributes.get_int("end", None)
    return Numbers(_entries(counts[view.integer("start", 0) : end]))


def size(view: View) -> Numbers:
    """Give the one entry of a Size."""
    return Numbers(_scalar(product([axis.count for axis in view.axes()])))


def arithmetic(view: View) -> Numbers:
    """Apply a pointwise operator, a layout or a reduction to entries.

    Raises:
        Unknown: an operator that numbers from shapes do not go through.
    """
    op, first = view.node.op_type, view.numbers(0)
    if op in _BINARY or (op in _UNARY and len(view.node.inputs) == 1):
        operands = [view.numbers(index) for index in range(len(view.node.inputs))]
        if op == "Div":
            op = "Div" if any(_real(view.node.inputs[index]) for index in range(2)) else "IntegerDiv"
        result = operands[0] if len(operands) > 1 else _each(op, operands[0])
        for other in operands[1:]:
            result = _each(op, result, other)
        return Numbers(result)
    rule = _RULES.get(op)
    if rule is None:
        raise Unknown("the size of the map flows into it as a number")
    return Numbers(rule(view, first))


def _cast(view: View, first: np.ndarray) -> np.ndarray:
    to = ir.DataType(view.integer("to", 0)) if view.node.op_type == "Cast" else view.value(1).dtype
    return _each("Float" if to in _REAL else "Integer", first)


def _gather(view: View, first: np.ndarray) -> np.ndarray:
    taken = np.take(first, view.array(1), axis=view.integer("axis", 0))
    return taken if isinstance(taken, np.ndarray) else _scalar(taken)


def _slice(view: View, first: np.ndarray) -> np.ndarray:
    start, end = int(view.array(1).item()), int(view.array(2).item())
    step = int(view.array(4).item()) if view.has(4) else 1
    return first[start:end:step]


def _concat(view: View, first: np.ndarray) -> np.ndarray:
    return np.concatenate([view.numbers(index) for index in range(len(view.node.inputs))])


def _unsqueeze(view: View, first: np.ndarray) -> np.ndarray:
    axes = view.listed("axes", 1) or ()
    return np.expand_dims(first, tuple(place(axis, first.ndim + len(axes)) for axis in axes))


def _squeeze(view: View, first: np.ndarray) -> np.ndarray:
    axes = view.listed("axes", 1)
    squeezed = np.squeeze(first, axis=axes)
    return squeezed if isinstance(squeezed, np.ndarray) else _scalar(squeezed)


def _reshape(view: View, first: np.ndarray) -> np.ndarray:
    return first.reshape([int(n) for n in view.array(1).ravel()])


def _reduce(view: View, first: np.ndarray) -> np.ndarray:
    if first.ndim > 1:
        raise Unknown("the size of the map flows into it as a number")
    total: Size | Number = first.flat[0]
    op = {"ReduceProd": "Mul", "ReduceSum": "Add", "ReduceMax": "Max", "ReduceMin": "Min"}[view.node.op_type]
    for other in first.flat[1:]:
        total = calculate(op, total, other)
    return _entries([total]) if view.integer("keepdims", 1) else _scalar(total)


_RULES: dict[str, Callable[[View, np.ndarray], np.ndarray]] = {
    "Identity": lambda view, first: first,
    "Cast": _cast,
    "CastLike": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
}


def _entries(values: list[Size | Number]) -> np.ndarray:
    entries = np.empty(len(values), object)
    entries[:] = values
    return entries


def _scalar(value: Size | Number) -> np.ndarray:
    entry = np.empty((), object)
    entry[()] = value
    return entry


def _each(op: str, *operands: np.ndarray) -> np.ndarray:
    arrays: Sequence[np.ndarray] = np.broadcast_arrays(*operands) if len(operands) > 1 else operands
    result = np.empty(arrays[0].shape, object)
    entries = zip(*[array.ravel().tolist() for array in arrays], strict=True)
    for index, numbers in zip(np.ndindex(result.shape), entries, strict=True):
        result[index] = calculate(op, *numbers)
    return result


def _real(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in _REAL

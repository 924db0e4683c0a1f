"""Nested JSON lists to arrays, by way of simdjson's buffers: no Python number is made unless something is amiss.

simdjson flattens nested lists of numbers into one buffer and does not say whether they were rectangular. That is found
out from the lists alone, whose elements stay where they are:

1. The shape is taken from the first list, its first list, and so on; its product must be the buffer's length.
2. Every list down to the rows of numbers must have the length that the shape says.
3. A row such as [3,[4]] passes both. It is found by counting: the document must have no more `[` than the lists of this
   shape and those that the rest of the document needs.

Whatever fails there is read again by a walk over the elements, which is exact, some ten times slower, and names the place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Literal

import numpy as np
from simdjson import Array, Object

from service.codecs.tensors.dtypes import MAX_DIMENSIONS, DType, Tensor, check_shape, kind_of
from service.errors import InvalidTensor

NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_SATURATED = 0xFFFFFF  # simdjson keeps lengths in 24 bits; a list of this length may be any longer
_SMALL = 16  # members of an object that is looked into
_KINDS: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool, int}}
_WIDE: dict[str, Literal["d", "i", "u"]] = {"f": "d", "i": "i", "u": "u", "b": "u"}
WIDEST: dict[str, DType] = {
    "f": np.dtype(np.float64),
    "i": np.dtype(np.int64),
    "u": np.dtype(np.uint64),
    "b": np.dtype(np.uint64),
}


def _length(array: Array) -> int:
    """Count a list's elements; simdjson's own count ends at 2^24 − 1."""
    size = len(array)
    return size if size < _SATURATED else sum(1 for _ in array)


def count_arrays(value: object, depth: int = 0) -> int:
    """Count lists in a value that has not been checked: a lower bound, exact for rectangular lists and small objects."""
    if isinstance(value, Array):
        if depth == MAX_DIMENSIONS or not len(value) or not isinstance(value[0], Array | Object):
            return 1
        return 1 + sum(count_arrays(part, depth + 1) for part in value)
    if isinstance(value, Object) and depth < MAX_DIMENSIONS and len(value) <= _SMALL:
        # A name once, be it there twice; and none with NUL, at which simdjson would end it.
        return sum(count_arrays(value[name], depth + 1) for name in set(value) if "\0" not in name)
    return 0


class NeedsWalk(Exception):
    """Something is amiss, or not finite: only a walk over the elements can read it or say what it is."""


def read_array(
    array: Array,
    dtype: DType,
    *,
    max_elements: int,
    name: str,
    brackets: int | None,
    flat: bool = False,
    walk: bool = True,
) -> Tensor:
    """Make an array of nested lists of numbers.

    The strings "NaN", "Infinity" and "-Infinity" are numbers for float dtypes. For bool, true and false are taken, and
    0 and 1. Copies: simdjson's buffer, and the array where the dtype is not float64, int64 or uint64.

    Args:
        array: the outermost list.
        dtype: one of DTYPES, or bool.
        max_elements: largest product of the shape.
        name: what the messages call it; a place in it is written as `name[3][1]`.
        brackets: how many `[` the document has beside those that its other members need; None: not known, which costs
            the exact walk.
        flat: expect numbers only, no lists of them.
        walk: over the elements, where it must be; 0.1 µs each.

    Returns:
        As nested: [] is (0,), [[], []] is (2, 0). C-contiguous.

    Raises:
        InvalidTensor (422): ragged, something other than numbers in it, more than 32 dimensions, or a number that the
            dtype does not have: 300 in uint8, 2.5 in an integer one, 1e39 in float32.
        PayloadTooLarge (413): more than max_elements.
        NeedsWalk: and it was not to be.
    """

    def checked(sizes: Iterable[int]) -> tuple[int, ...]:
        return check_shape(sizes, max_elements=max_elements, itemsize=dtype.itemsize, name=name)

    parts = _first_parts(array, name)
    if flat and len(parts) > 1:
        raise InvalidTensor(f"{name}[0]: expected a number, got an array")
    shape = checked(map(len, parts))
    numbers = None if brackets is None else _flattened(array, dtype)
    if numbers is not None and len(shape) == brackets == 1:
        return narrowed(numbers.reshape(checked([numbers.size])), dtype, name)
    if (
        numbers is not None
        and numbers.size == math.prod(shape)
        and max(shape) < _SATURATED
        and _count_rectangular(array, shape) == brackets
    ):
        return narrowed(numbers.reshape(shape), dtype, name)
    if not walk:
        raise NeedsWalk
    shape = checked(map(_length, parts))
    wide = np.empty(shape, WIDEST[dtype.kind])
    _fill(wide, array, dtype, name, name)
    return narrowed(wide, dtype, name)


def _first_parts(array: Array, name: str) -> list[Array]:
    """Descend by first elements: the list, its first list, and so on, whose lengths are the shape."""
    parts = [array]
    while len(array) and isinstance(first := array[0], Array):
        if len(parts) == MAX_DIMENSIONS:
            raise InvalidTensor(f"{name}: expected at most {MAX_DIMENSIONS} dimensions, got more")
        parts.append(array := first)
    return parts


def _flattened(array: Array, dtype: DType) -> Tensor | None:
    """Flatten by simdjson; None where something in it is no number of this kind."""
    try:
        buffer = array.as_buffer(of_type=_WIDE[dtype.kind])
    except (TypeError, ValueError):
        return None
    widest = WIDEST[dtype.kind]
    return np.frombuffer(buffer, widest) if memoryview(buffer).nbytes else np.empty(0, widest)


def _count_rectangular(array: Array, shape: tuple[int, ...]) -> int:
    """Count the lists of a nested list of this shape; 0 where one of them has another length than the shape says.

    There are only lists and numbers in it.
    """
    if len(array) != shape[0]:
        return 0
    for depth in range(1, len(shape)):
        try:
            lengths = set(map(len, _lists(array, depth)))  # type: ignore[arg-type]  # a third faster than looking what they are
        except TypeError:  # a number has none
            return 0
        if lengths != {shape[depth]}:
            return 0
    return sum(math.prod(shape[:depth]) for depth in range(len(shape)))


def _lists(array: Array, depth: int) -> Iterable[object]:
    """Give what lies so deep in nested lists: at 1 the elements."""
    elements: Iterable[object] = array
    for _ in range(depth - 1):
        elements = chain.from_iterable(elements)  # type: ignore[arg-type]
    return elements


def _fill(out: Tensor, array: Array, dtype: DType, name: str, place: str) -> None:
    """Read element by element into `out`, which has the shape and the widest dtype of its kind.

    Raises:
        InvalidTensor (422): says where, and what was expected there.
    """
    size = _length(array)
    if size != len(out):
        raise InvalidTensor(f"{name}: ragged, expected {len(out)} elements in {place} as in the first, got {size}")
    if out.ndim == 1:
        _fill_row(out, array, dtype, place)
        return
    for index, part in enumerate(array):
        if not isinstance(part, Array):
            raise InvalidTensor(
                f"{place}[{index}]: expected an array of {out.shape[1]} elements as the first, got {kind_of(part)}"
            )
        _fill(out[index], part, dtype, name, f"{place}[{index}]")


def _fill_row(out: Tensor, row: Array, dtype: DType, place: str) -> None:
    kinds = set(map(type, row))
    with suppress(OverflowError, KeyError):  # an integer beyond int64 or uint64, another string: again, for its place
        if kinds <= _KINDS[dtype.kind]:
            out[:] = np.fromiter(row, out.dtype, out.size)
            return
        if dtype.kind == "f" and kinds <= {int, float, str}:
            floats = (NON_FINITE[value] if type(value) is str else value for value in row)
            out[:] = np.fromiter(floats, out.dtype, out.size)
            return
    out[:] = np.fromiter(_numbers(row, dtype, place), out.dtype, out.size)


def _numbers(row: Array, dtype: DType, place: str) -> Iterator[float]:
    for index, value in enumerate(row):
        yield number(value, dtype, f"{place}[{index}]")


def number(value: object, dtype: DType, place: str) -> float:
    """Check that a JSON value is a number that an array of this dtype's kind can hold exactly, or round if float.

    Raises:
        InvalidTensor (422): names the place and the kind of what came.
    """
    if dtype.kind == "f":
        if type(value) is float or type(value) is int:
            return value
        if isinstance(value, str) and value in NON_FINITE:
            return NON_FINITE[value]
        raise InvalidTensor(f'{place}: expected a number, "NaN", "Infinity" or "-Infinity", got {kind_of(value)}')
    if dtype.kind == "b":
        if type(value) is bool or (type(value) is int and value in {0, 1}):
            return int(value)
        raise InvalidTensor(f"{place}: expected true, false, 0 or 1, got {kind_of(value)}")
    if type(value) is not int:
        raise InvalidTensor(f"{place}: expected an integer for {dtype}, got {kind_of(value)}")
    limits = np.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise _outside(dtype, place)
    return value


def _outside(dtype: DType, place: str) -> InvalidTensor:
    if dtype.kind == "f":
        return InvalidTensor(
            f"{place}: expected a number up to ±{np.finfo(dtype).max:.6g} for {dtype}, got a larger one"
        )
    limits = np.iinfo(dtype)
    return InvalidTensor(f"{place}: expected {limits.min} … {limits.max} for {dtype}, got an integer outside")


def narrowed(wide: Tensor, dtype: DType, name: str) -> Tensor:
    """Convert from the widest dtype of its kind; no copy where that is the dtype.

    Raises:
        InvalidTensor (422): a number that the dtype does not have, with its place.
    """
    if wide.dtype == dtype:
        return wide
    if dtype.kind == "f":
        try:
            with np.errstate(over="raise"):
                return wide.astype(dtype)
        except FloatingPointError:
            with np.errstate(over="ignore"):
                wrong = np.isinf(wide.astype(dtype)) & np.isfinite(wide)
    elif dtype.kind == "b":
        wrong = wide > 1
    else:
        limits = np.iinfo(dtype)
        if not wide.size or (wide.min() >= limits.min and wide.max() <= limits.max):
            return wide.astype(dtype)
        wrong = (wide < limits.min) | (wide > limits.max)
    if not wrong.any():
        return wide.astype(dtype)
    place = name + "".join(f"[{index}]" for index in np.unravel_index(int(wrong.argmax()), wide.shape))
    if dtype.kind == "b":
        raise InvalidTensor(f"{place}: expected true, false, 0 or 1, got an integer")
    raise _outside(dtype, place)

"""Arrays to JSON text, by orjson straight from their memory; numbers in their shortest form that reads back the same.

orjson holds the interpreter's lock from the beginning of a call to its end: a gigabyte of text in one call is four seconds in which
nobody is answered, be it in a thread. So large arrays are written in slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from service.codecs.tensors.base64_text import encode_base64
from service.codecs.tensors.dtypes import Tensor, little_endian, native
from service.codecs.tensors.pieces import Pieces

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_SMALL = 4096
"""Elements up to which an array is written first and looked at then: NumPy's calls would cost more than the text."""

_SLICE = 2**16
"""Elements that are written by one call: 2 ms of float32, 4 of float64."""

_BASE64_SLICE = 3 * 2**18
"""Bytes that are encoded by one call: a multiple of 3, so that the texts of slices make the text of the whole; 1 ms."""

_PLAIN = frozenset({str, int, bool, type(None)})
_NUMPY = (np.ndarray, np.floating)  # a union would be made anew at each use


def write_json(members: Mapping[str, object]) -> bytes:
    """Write an object as JSON.

    NaN and the infinities, in arrays and as Python floats, come out as the strings "NaN", "Infinity" and "-Infinity".
    Arrays that are not C-contiguous are copied, and float16 is widened; nothing else is.

    Args:
        members: arrays of DTYPES and bool of any shape, and what JSON has, nested in any way.
    """
    if _is_large(members):
        return b"".join(json_pieces(members))
    return orjson.dumps({name: _writable(value) for name, value in members.items()}, option=_OPTIONS)


def json_pieces(members: Mapping[str, object]) -> list[bytes]:
    """Write an object as `write_json` does, the text in pieces, at least one; other threads run while a large one is written."""
    pieces = Pieces()
    _add(members, pieces)
    return pieces.taken()


def array_pieces(array: Tensor) -> list[bytes]:
    """Write one array as JSON, nested as its shape says, in pieces; otherwise as `json_pieces`."""
    if array.size <= _SLICE:
        return [_text(array)]
    pieces = Pieces()
    _add_slices(array, pieces)
    return pieces.taken()


def write_array(array: Tensor) -> bytes:
    """Write one array as JSON, nested as its shape says; otherwise as `write_json`."""
    return _text(array) if array.size <= _SLICE else b"".join(array_pieces(array))


def tensor_member(array: Tensor, form: Literal["nested", "flat", "base64"]) -> object:
    """Give an array as the value that `write_json` writes in one of the three forms in which tensors come.

    base64 is of the little-endian bytes. One copy: its text.
    """
    if form == "nested":
        return array
    stated: dict[str, object] = {"shape": list(array.shape), "dtype": array.dtype.name}
    if form == "flat":
        return {**stated, "data": array.reshape(-1)}
    if array.nbytes > _BASE64_SLICE:
        return {**stated, "base64": _Base64(little_endian(array))}
    # Base64 has nothing that JSON escapes, so it goes in as it is.
    return {**stated, "base64": orjson.Fragment(b'"%b"' % encode_base64(little_endian(array)))}


class _Base64(NamedTuple):
    """Bytes that are to be written as base64, when the text around them is."""

    data: memoryview


def _is_large(value: object) -> bool:
    """Whether there is something in a value that is written in more than one call."""
    if type(value) in _PLAIN:
        return False
    if isinstance(value, np.ndarray):
        return value.size > _SLICE
    if isinstance(value, Mapping):
        return any(map(_is_large, value.values()))
    return isinstance(value, _Base64) or (isinstance(value, list | tuple) and any(map(_is_large, value)))


def _add(value: object, pieces: Pieces) -> None:
    """Write a value behind what is written."""
    if not _is_large(value):
        pieces.add(orjson.dumps(_writable(value), option=_OPTIONS))
    elif isinstance(value, np.ndarray):
        _add_slices(value, pieces)
    elif isinstance(value, _Base64):
        pieces.add(b'"')
        for start in range(0, len(value.data), _BASE64_SLICE):
            pieces.add(encode_base64(value.data[start : start + _BASE64_SLICE]))
        pieces.add(b'"')
    elif isinstance(value, Mapping):
        for place, (name, item) in enumerate(value.items()):
            pieces.add(b"," if place else b"{", orjson.dumps(name), b":")
            _add(item, pieces)
        pieces.add(b"}")
    else:
        assert isinstance(value, list | tuple)  # nothing else is large
        for place, item in enumerate(value):
            pieces.add(b"," if place else b"[")
            _add(item, pieces)
        pieces.add(b"]")


def _add_slices(array: Tensor, pieces: Pieces) -> None:
    """Write an array of more than _SLICE elements: as many of its rows together as are no more, or each row in slices."""
    rows = _SLICE // (array.size // len(array))
    if not rows:
        for place, row in enumerate(array):
            pieces.add(b"," if place else b"[")
            _add_slices(row, pieces)
    for start in range(0, len(array), rows) if rows else ():
        # The slice's own outermost brackets are not the array's.
        pieces.add(b"," if start else b"[", memoryview(_text(array[start : start + rows]))[1:-1])
    pieces.add(b"]")


def _text(array: Tensor) -> bytes:
    written = _array(array)
    return written if isinstance(written, bytes) else orjson.dumps(written, option=_OPTIONS)


def _writable(value: object) -> object:
    if type(value) in _PLAIN:  # most members
        return value
    if isinstance(value, _NUMPY):
        written = _array(np.asarray(value))
        return orjson.Fragment(written) if isinstance(written, bytes) else written
    if isinstance(value, float):
        return value if math.isfinite(value) else _non_finite_name(value)
    if isinstance(value, Mapping):
        return {name: _writable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_writable(item) for item in value]
    return value


def _array(array: Tensor) -> bytes | Tensor | np.generic:
    """Give an array as text, or as what orjson writes as it stands."""
    if not array.size:
        return _empty(array.shape)
    array = native(array)
    if array.dtype == np.float16:
        array = _float16_decimals()[array.view(np.uint16)]
    if not array.ndim and array.dtype.kind != "f":
        return orjson.dumps(
            array.item()
        )  # as NumPy's scalar orjson refuses long long, which a sum is, though it has 64 bits
    value: Tensor | np.generic = array if array.ndim else array[()]
    if array.dtype.kind == "f" and array.size <= _SMALL:
        text = orjson.dumps(value, option=_OPTIONS)
        if b"null" not in text:  # which orjson writes for NaN and the infinities
            return text
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        if np.count_nonzero(finite) != finite.size:  # faster than all(), which small answers feel
            return _with_non_finite(array, finite)
    return value


def _empty(shape: tuple[int, ...]) -> bytes:
    """Write an array without elements as NumPy's tolist has it: (2, 0) is [[],[]]."""
    text = b"[]"
    for size in reversed(shape[: shape.index(0)]):
        text = b"[" + b",".join([text] * size) + b"]"
    return text


def _with_non_finite(array: npt.NDArray[np.floating], finite: npt.NDArray[np.bool_]) -> bytes:
    """Write an array that has NaN or infinities: orjson writes null in their places, where the strings are put then."""
    pieces = orjson.dumps(array if array.ndim else array[()], option=_OPTIONS).split(b"null")
    names = [f'"{_non_finite_name(value)}"'.encode() for value in array[~finite].tolist()]
    parts = [b""] * (2 * len(names) + 1)
    parts[::2] = pieces
    parts[1::2] = names
    return b"".join(parts)


def _non_finite_name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@cache
def _float16_decimals() -> npt.NDArray[np.float64]:
    """The float64 with the shortest decimal of each float16, by its bits: 0.1, where widening gives 0.0999755859375.

    Integers stay what they are: 65500 would be read as 65504 too, and is no shorter. 512 kB and 40 ms, once, at the first
    float16 answer.
    """
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    decimals = np.array([float(str(value)) for value in values])
    return np.where(np.rint(decimals) == decimals, values, decimals)

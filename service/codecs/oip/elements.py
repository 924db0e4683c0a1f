"""Elements of datatype BYTES: strings in JSON, or each with its length before it (uint32, little-endian) in a binary tail."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

from simdjson import Array

from service.codecs.tensors.dtypes import kind_of
from service.errors import InvalidTensor

_LENGTH = struct.Struct("<I")


def read_elements(data: memoryview, count: int, place: str) -> list[bytes]:
    """Take a tail apart.

    Args:
        data: of one input.
        count: of elements, by its shape.
        place: what the messages call it.

    Raises:
        InvalidTensor (422): more or fewer elements than the shape says, or a length that passes the end.
    """
    if len(data) < count * _LENGTH.size:
        raise InvalidTensor(
            f"{place}: expected {count} elements by its shape, each with 4 bytes of length, got {len(data)} bytes"
        )
    elements = []
    offset = 0
    for index in range(count):
        if len(data) - offset < _LENGTH.size:
            raise InvalidTensor(f"{place}: expected {count} elements by its shape, got {index}")
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        if length > len(data) - offset:
            raise InvalidTensor(
                f"{place}[{index}]: expected {length} bytes by the length before them, {len(data) - offset} are left"
            )
        elements.append(bytes(data[offset : offset + length]))
        offset += length
    if offset != len(data):
        raise InvalidTensor(
            f"{place}: expected {count} elements by its shape, {len(data) - offset} bytes follow the last one"
        )
    return elements


def write_elements(elements: Sequence[bytes]) -> bytes:
    """Put elements together, each with its length before it."""
    return b"".join([part for element in elements for part in (_LENGTH.pack(len(element)), element)])


def read_strings(data: Array, shape: tuple[int, ...], place: str) -> list[bytes]:
    """Read JSON strings, nested as the shape says or in one list.

    Returns:
        Each in UTF-8.

    Raises:
        InvalidTensor (422): something other than strings, or not as many as the shape says.
    """
    nested = len(shape) > 1 and len(data) > 0 and isinstance(data[0], Array)
    return [text.encode() for text in _strings(data, shape if nested else (math.prod(shape),), place)]


def _strings(data: object, shape: tuple[int, ...], place: str) -> Iterator[str]:
    if not isinstance(data, Array):
        raise InvalidTensor(f"{place}: expected an array of {shape[0]}, got {kind_of(data)}")
    if len(data) != shape[0]:
        raise InvalidTensor(f"{place}: expected {shape[0]} elements by its shape, got {len(data)}")
    for index, value in enumerate(data):
        if len(shape) > 1:
            yield from _strings(value, shape[1:], f"{place}[{index}]")
        elif isinstance(value, str):
            yield value
        else:
            raise InvalidTensor(f"{place}[{index}]: expected a string, got {kind_of(value)}")

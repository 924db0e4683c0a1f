"""Raw little-endian elements, row-major, with shape and dtype given beside them as text."""

from __future__ import annotations

import re

from service.codecs.tensors.dtypes import Tensor, check_shape, dtype_named, from_bytes, little_endian
from service.errors import InvalidTensor

_SHAPE = re.compile(r"\d{1,19}(?:,\d{1,19}){0,63}", re.ASCII)


def read_shape(text: str) -> list[int]:
    """Read `8,64,56,56`; the empty text is the shape of a scalar.

    Raises:
        InvalidTensor (422): anything but decimal digits and commas.
    """
    if not text:
        return []
    if not _SHAPE.fullmatch(text):
        raise InvalidTensor("shape: expected sizes as in 8,64,56,56, got something else")
    return [int(size) for size in text.split(",")]


def write_shape(shape: tuple[int, ...]) -> str:
    """Write a shape the way `read_shape` reads it."""
    return ",".join(map(str, shape))


def read_raw(body: bytes | bytearray | memoryview, *, shape: str, dtype: str, max_elements: int) -> Tensor:
    """See a body as the tensor that it is said to be.

    Args:
        body: the elements, little-endian, row-major.
        shape: as `read_shape` takes it.
        dtype: one of DTYPES by name.
        max_elements: largest product of the shape.

    Returns:
        (shape): a read-only view of the body; a copy only where the body's bytes are not aligned for the dtype.

    Raises:
        InvalidTensor (422): unreadable shape or dtype, or a body of another length than they say.
        PayloadTooLarge (413): more than max_elements.
    """
    element = dtype_named(dtype)
    sizes = check_shape(read_shape(shape), max_elements=max_elements, itemsize=element.itemsize)
    data = memoryview(body).toreadonly().cast("B")
    expected = element.itemsize
    for size in sizes:
        expected *= size
    if len(data) != expected:
        raise InvalidTensor(f"expected {expected} bytes for ({write_shape(sizes)}) {dtype}, got {len(data)}")
    return from_bytes(data, element.newbyteorder("<"), sizes)


def write_raw(array: Tensor) -> memoryview:
    """Give the elements as little-endian bytes, row-major; no copy of an array that lies so."""
    return little_endian(array)

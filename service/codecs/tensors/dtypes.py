"""The dtypes of tensors, and what shapes are allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import InvalidTensor, PayloadTooLarge

Tensor = npt.NDArray[Any]
DType = np.dtype[Any]

DTYPES: dict[str, DType] = {
    name: np.dtype(name)
    for name in (
        "float16", "float32", "float64",
        "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64",
    )
}  # fmt: skip
"""The dtypes of tensors by name, in native byte order."""

BOOL: DType = np.dtype(np.bool_)
"""The dtype of masks: read where it comes, refused by whoever does not want a mask."""

MAX_DIMENSIONS = 32


def dtype_named(name: object) -> DType:
    """Look a dtype up by its name.

    Raises:
        InvalidTensor (422): not one of DTYPES; the message lists them.
    """
    found = DTYPES.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidTensor(f"dtype: expected one of {', '.join(DTYPES)}, got something else")
    return found


def check_shape(shape: Iterable[object], *, max_elements: int, itemsize: int, name: str = "shape") -> tuple[int, ...]:
    """Check a shape that a client states, before anything of it is allocated.

    The limit holds for the product of the sizes that are not 0: an empty tensor of 10⁹ rows holds nothing, but what is
    computed from it would.

    Args:
        shape: what came, of any types.
        max_elements: largest product of the sizes.
        itemsize: bytes of one element.
        name: what the messages call it.

    Returns:
        The shape as a tuple of int, every size ≥ 0.

    Raises:
        InvalidTensor (422): sizes that are no integers (booleans and 2.0 are none) or negative, more than 32 of them, or
            more bytes than an address space has.
        PayloadTooLarge (413): more than max_elements.
    """
    sizes: list[int] = []
    for size in shape:
        if len(sizes) == MAX_DIMENSIONS:
            raise InvalidTensor(f"{name}: expected at most {MAX_DIMENSIONS} dimensions, got more")
        if type(size) is not int:
            raise InvalidTensor(f"{name}[{len(sizes)}]: expected an integer ≥ 0, got {kind_of(size)}")
        if size < 0:
            raise InvalidTensor(f"{name}[{len(sizes)}]: expected an integer ≥ 0, got a negative one")
        sizes.append(size)
    elements = math.prod(size or 1 for size in sizes)
    if elements * itemsize >= 2**63:
        raise InvalidTensor(f"{name}: expected fewer than 2^63 bytes, the product of its sizes gives more")
    if elements > max_elements:
        raise PayloadTooLarge(f"{name}: expected at most {max_elements} elements, got {elements}")
    return tuple(sizes)


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, for messages that must not repeat the value itself."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int):
        return "an integer"
    if isinstance(value, float):
        return "a number with a fraction or an exponent"
    if isinstance(value, str):
        return "a string"
    return "an array" if hasattr(value, "as_list") or isinstance(value, list) else "an object"


def native(array: Tensor) -> Tensor:
    """Make an array C-contiguous, aligned and of native byte order; a copy only where it is not all of that yet."""
    if array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned:
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def little_endian(array: Tensor) -> memoryview:
    """Give an array's elements, row-major, as little-endian bytes: a view where they lie so, else of a copy."""
    ordered = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return ordered.reshape(-1).view(np.uint8).data


def from_bytes(data: memoryview | bytes, dtype: DType, shape: tuple[int, ...], *, fortran: bool = False) -> Tensor:
    """See bytes as an array of this dtype and shape. They must be as many as it needs.

    Returns:
        A read-only view of the bytes; a copy of them where they are not aligned, not little-endian or column-major.
    """
    flat = np.frombuffer(data, dtype) if len(data) else np.zeros(0, dtype)
    return native(flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape))

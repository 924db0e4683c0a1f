"""NumPy's .npy format, versions 1 to 3.

Source: numpy.lib.format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The header is a Python
literal there, which NumPy evaluates; here it is matched by a pattern of the three members that it has, so that nothing
in it is ever evaluated.
"""

from __future__ import annotations

import math
import re
import struct

import numpy as np

from service.codecs.tensors.dtypes import (
    BOOL,
    DTYPES,
    MAX_DIMENSIONS,
    DType,
    Tensor,
    check_shape,
    from_bytes,
    little_endian,
)  # fmt: skip
from service.errors import InvalidTensor, Malformed, UnsupportedMediaType

MAGIC = b"\x93NUMPY"
MAX_HEADER = 4096  # bytes; NumPy's own headers of plain arrays have 128, of 32 dimensions at most 1 kB

_ALIGNMENT = 64
_MEMBER = re.compile(
    r"""\s*["'](?P<key>descr|fortran_order|shape)["']\s*:\s*
    (?: ["'](?P<descr>[^"']{0,64})["'] | (?P<order>True|False) | \((?P<shape>[\d\s,L]*)\) )\s*(?:,|\Z)""",
    re.VERBOSE | re.ASCII,
)
_PLAIN = re.compile(rb"\x93NUMPY\x01\x00..\{'descr': '[<|][fiu][1248]', 'fortran_order': False, ", re.DOTALL)
"""How NumPy begins a file whose data lie as they are wanted."""

_STRUCTURED = re.compile(r"\s*['\"]descr['\"]\s*:\s*\[")
_SIZES = re.compile(r"\s*(?:\d{1,19}L?\s*,\s*)*(?:\d{1,19}L?\s*)?", re.ASCII)
_DESCRIPTIONS: dict[str, DType] = {
    order + dtype.str[1:]: np.dtype(order + dtype.str[1:])
    for dtype in (*DTYPES.values(), BOOL)
    for order in ("|<>" if dtype.itemsize == 1 else "<>")
}


def read_npy(body: bytes | bytearray | memoryview, *, max_elements: int, name: str = ".npy") -> Tensor:
    """Read a .npy file.

    Args:
        body: the whole file.
        max_elements: largest product of its shape.
        name: what the messages call it.

    Returns:
        The array: one of DTYPES, or bool. A read-only view of the body where the data lie aligned, row-major and
        little-endian (as NumPy writes them); else a copy.

    Raises:
        UnsupportedMediaType (415): not a .npy file by its first bytes, or a version other than 1 to 3.
        Malformed (400): truncated within its header, or a header that cannot be read.
        InvalidTensor (422): a dtype or shape that is not taken, or data of another length than the header says.
        PayloadTooLarge (413): more than max_elements.
    """
    data = memoryview(body).toreadonly().cast("B")
    header, start = _header(data, name)
    dtype, fortran, sizes = _members(header, name)
    shape = check_shape(sizes, max_elements=max_elements, itemsize=dtype.itemsize, name=f"{name}: shape")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        raise InvalidTensor(f"{name}: expected {expected} bytes of data by its header, got {len(data) - start}")
    if dtype == BOOL and expected and np.frombuffer(data[start:], np.uint8).max() > 1:
        raise InvalidTensor(f"{name}: expected bool as bytes 0 and 1, got another byte")
    return from_bytes(data[start:], dtype, shape, fortran=fortran)


def is_plain(body: bytes | memoryview) -> bool:
    """Say whether `read_npy` has nothing to do but to look: no copy, no walk over the data. False also where it is not clear."""
    start = bytes(body[: 2 * _ALIGNMENT])
    return _PLAIN.match(start) is not None and (10 + int.from_bytes(start[8:10], "little")) % 8 == 0


def _header(data: memoryview, name: str) -> tuple[str, int]:
    """Find the header's text and where the data begin."""
    if data[:6] != MAGIC[: len(data)]:
        raise UnsupportedMediaType(f"{name}: expected a .npy file, which begins with \\x93NUMPY, got something else")
    if len(data) < 10:
        raise Malformed(f"{name}: truncated within its header")
    version = data[6]
    if version not in {1, 2, 3} or data[7]:
        raise UnsupportedMediaType(f"{name}: expected version 1.0, 2.0 or 3.0, got {version}.{data[7]}")
    prefix = struct.Struct("<H" if version == 1 else "<I")
    start = 8 + prefix.size
    if len(data) < start:
        raise Malformed(f"{name}: truncated within its header")
    (length,) = prefix.unpack_from(data, 8)
    if length > MAX_HEADER:
        raise Malformed(f"{name}: expected a header of at most {MAX_HEADER} bytes, it claims {length}")
    if len(data) < start + length:
        raise Malformed(f"{name}: truncated within its header, expected {length} bytes of it, got {len(data) - start}")
    return str(data[start : start + length], "latin-1"), start + length


def _members(header: str, name: str) -> tuple[DType, bool, list[int]]:
    """Read dtype, order and shape from the header's text."""
    unreadable = Malformed(f"{name}: expected a header with descr, fortran_order and shape, got something else")
    text = header.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise unreadable
    text = text[1:-1].strip()
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            if _STRUCTURED.match(text, position):
                raise _dtype_refused(name, "a structured one")
            raise unreadable
        value = {"descr": "descr", "fortran_order": "order", "shape": "shape"}[member["key"]]
        if member[value] is None or member["key"] in found:
            raise unreadable
        found[member["key"]] = member[value]
        position = member.end()
    if len(found) != 3 or not _SIZES.fullmatch(found["shape"]):
        raise unreadable
    if found["descr"] not in _DESCRIPTIONS:
        raise _dtype_refused(name, "another one")
    sizes = [int(size.strip().rstrip("L")) for size in found["shape"].split(",") if size.strip()]
    if len(sizes) == 1 and "," not in found["shape"]:
        raise unreadable  # (3) is a number, not a tuple
    return _DESCRIPTIONS[found["descr"]], found["fortran_order"] == "True", sizes


def _dtype_refused(name: str, got: str) -> InvalidTensor:
    return InvalidTensor(f"{name}: expected dtype {', '.join(DTYPES)} or, for masks, bool, got {got}")


def write_npy(array: Tensor) -> list[bytes | memoryview]:
    """Write a .npy file (version 1.0), as its header and its data, to be sent one after the other.

    Args:
        array: one of DTYPES or bool, at most 32 dimensions.

    Returns:
        Two buffers. The second is a view of the array where it is C-contiguous and little-endian, else of a copy.
    """
    assert array.ndim <= MAX_DIMENSIONS
    description = array.dtype.newbyteorder("<").str
    header = f"{{'descr': '{description}', 'fortran_order': False, 'shape': {array.shape!r}, }}"
    padding = -(len(MAGIC) + 4 + len(header) + 1) % _ALIGNMENT
    text = f"{header}{' ' * padding}\n".encode("ascii")
    return [MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text, little_endian(array)]

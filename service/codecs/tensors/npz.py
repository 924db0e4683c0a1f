"""NumPy's .npz format: a ZIP archive of .npy files, which is how one body carries several arrays.

Source: PKWARE's APPNOTE 6.3.10, sections 4.3.7 to 4.3.16. The archive is read from its directory alone; stored members
(as np.savez writes them) are views of the body, deflated ones are inflated to the size that the directory says and not
a byte further. ZIP64, encryption and other methods are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from service.codecs.tensors.dtypes import Tensor
from service.codecs.tensors.npy import MAX_HEADER, read_npy, write_npy
from service.errors import InvalidTensor, Malformed, PayloadTooLarge, UnsupportedMediaType

MAX_ARRAYS = 64

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_MAX_COMMENT = 0xFFFF
_MAX_NAME = 256
_BEYOND_32_BITS = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_VERSION = 20
_DATE = 0x21  # 1 January 1980, the first day that the format has


class _Member(NamedTuple):
    name: str
    method: int
    checksum: int
    packed: int  # bytes in the archive
    size: int  # bytes when inflated
    offset: int  # of its local header


def read_npz(body: bytes | bytearray | memoryview, *, max_elements: int) -> dict[str, Tensor]:
    """Read every array of a .npz file.

    Args:
        body: the whole file.
        max_elements: of each array; all of them together may have 8 · max_elements bytes.

    Returns:
        The arrays by their members' names without `.npy`, in the archive's order, each as `read_npy` gives it: a
        read-only view of the body where it was stored and lies aligned.

    Raises:
        UnsupportedMediaType (415): no ZIP archive by its first bytes, or methods other than stored and deflated.
        Malformed (400): a broken archive.
        InvalidTensor (422): encrypted, a name twice, a member that is no .npy, a wrong checksum; and as `read_npy`.
        PayloadTooLarge (413): more than MAX_ARRAYS, or more elements than the limits, by the directory.
    """
    data = memoryview(body).toreadonly().cast("B")
    if bytes(data[:4]) not in {b"PK\x03\x04", b"PK\x05\x06"}:  # not every buffer's view can be hashed
        raise UnsupportedMediaType(".npz: expected a ZIP archive, which begins with PK, got something else")
    members = list(_directory(data))
    limit = 8 * max_elements + len(members) * (MAX_HEADER + 12)
    total = sum(member.size for member in members)
    if total > limit:
        raise PayloadTooLarge(f".npz: expected at most {limit} bytes in all arrays, its directory says {total}")
    arrays: dict[str, Tensor] = {}
    for member in members:
        if member.name in arrays:
            raise InvalidTensor(f".npz: expected each array once, {member.name!r} is there twice")
        arrays[member.name] = read_npy(_content(data, member), max_elements=max_elements, name=f"{member.name}.npy")
    return arrays


def _directory(data: memoryview) -> Iterator[_Member]:
    tail = bytes(data[-(_END.size + _MAX_COMMENT) :])
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise Malformed(".npz: truncated, expected a directory at its end")
    _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(tail, found)
    if 0xFFFF in {disk, here, count} or _BEYOND_32_BITS in {size, start}:
        raise UnsupportedMediaType(".npz: expected a ZIP archive below 4 GiB, got ZIP64")
    if disk or first_disk or here != count or start + size > len(data) - len(tail) + found:
        raise Malformed(".npz: expected a directory within the archive, its end says otherwise")
    if count > MAX_ARRAYS:
        raise PayloadTooLarge(f".npz: expected at most {MAX_ARRAYS} arrays, got {count}")
    position, end = start, start + size
    for _ in range(count):
        if position + _CENTRAL.size > end:
            raise Malformed(f".npz: truncated directory, expected {count} members")
        fields = _CENTRAL.unpack_from(data, position)
        signature, flags, method, checksum, packed, unpacked = fields[0], fields[3], fields[4], *fields[7:10]
        name_bytes, extra_bytes, comment_bytes, offset = *fields[10:13], fields[16]
        position += _CENTRAL.size
        if signature != b"PK\x01\x02" or position + name_bytes > end:
            raise Malformed(".npz: broken directory")
        if _BEYOND_32_BITS in {packed, unpacked, offset}:
            raise UnsupportedMediaType(".npz: expected a ZIP archive below 4 GiB, got ZIP64")
        name = _name(bytes(data[position : position + name_bytes]), flags)
        position += name_bytes + extra_bytes + comment_bytes
        if flags & _ENCRYPTED:
            raise InvalidTensor(".npz: expected arrays that are not encrypted")
        if method not in {_STORED, _DEFLATED}:
            raise UnsupportedMediaType(f".npz: expected members stored (0) or deflated (8), got method {method}")
        yield _Member(name, method, checksum, packed, unpacked, offset)


def _name(encoded: bytes, flags: int) -> str:
    try:
        name = encoded[: _MAX_NAME + 1].decode("utf-8" if flags & _UTF_8 else "cp437")
    except UnicodeDecodeError:
        raise Malformed(".npz: expected names in UTF-8") from None
    if not name.endswith(".npy") or not name.isprintable():
        raise InvalidTensor(f".npz: expected members named <array>.npy of at most {_MAX_NAME} bytes, got another name")
    return name.removesuffix(".npy")


def _content(data: memoryview, member: _Member) -> memoryview | bytes:
    """Give a member's bytes: a view if stored; inflated, to the stated size at most, if deflated."""
    if member.offset + _LOCAL.size > len(data) or bytes(data[member.offset : member.offset + 4]) != b"PK\x03\x04":
        raise Malformed(f".npz: expected {member.name}.npy where the directory says, got something else")
    name_bytes, extra_bytes = _LOCAL.unpack_from(data, member.offset)[9:11]
    start = member.offset + _LOCAL.size + name_bytes + extra_bytes
    content: memoryview | bytes = data[start : start + member.packed]
    if len(content) != member.packed:
        raise Malformed(f".npz: {member.name}.npy is truncated, expected {member.packed} bytes, got {len(content)}")
    if member.method == _DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflater.decompress(content, member.size + 1)
        except zlib.error:
            raise Malformed(f".npz: {member.name}.npy cannot be inflated") from None
        if not inflater.eof or inflater.unused_data:
            raise Malformed(
                f".npz: expected {member.name}.npy to inflate to {member.size} bytes, it does not end there"
            )
    if len(content) != member.size:
        raise Malformed(f".npz: expected {member.size} bytes of {member.name}.npy, got {len(content)}")
    if zlib.crc32(content) != member.checksum:
        raise InvalidTensor(f".npz: {member.name}.npy has another checksum than the archive says")
    return content


def write_npz(arrays: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """Write arrays as np.savez does: stored, not compressed.

    Args:
        arrays: by name, at most MAX_ARRAYS, in the order of the archive.

    Returns:
        Buffers to be sent one after the other. The data are views of the arrays as in `write_npy`.

    Raises:
        PayloadTooLarge (413): 4 GiB or more.
    """
    assert len(arrays) <= MAX_ARRAYS
    buffers: list[bytes | memoryview] = []
    directory: list[bytes] = []
    position = 0
    for name, array in arrays.items():
        file_name = f"{name}.npy".encode()
        header, content = write_npy(array)
        size = len(header) + len(content)
        if position + size > _BEYOND_32_BITS - MAX_ARRAYS * 2**16:
            raise PayloadTooLarge(".npz: expected an answer below 4 GiB, got more")
        checksum = zlib.crc32(content, zlib.crc32(header))
        common = (_VERSION, _UTF_8, _STORED, 0, _DATE, checksum, size, size, len(file_name), 0)
        local = _LOCAL.pack(b"PK\x03\x04", *common) + file_name
        directory.append(_CENTRAL.pack(b"PK\x01\x02", _VERSION, *common, 0, 0, 0, 0, position) + file_name)
        buffers += [local + header, content]
        position += len(local) + size
    size = sum(map(len, directory))
    return [*buffers, *directory, _END.pack(b"PK\x05\x06", 0, 0, len(directory), len(directory), size, position, 0)]

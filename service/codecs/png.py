"""PNG: its header, its checksums, and its pixels by Pillow, all 16 bits of them where it has so many.

Nothing about other formats belongs here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from service.codecs.header import ImageHeader, displayed, exif_orientation
from service.errors import InvalidImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 200_000  # data chunks are 8 KiB or more in practice; this bounds the walk, not the picture
# All that pixels need. Pillow gets nothing else: it would inflate text and colour profiles, and walk animations.
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # of the length before the kind
    payload: int
    end: int  # behind the checksum


def _chunks(data: bytes) -> Iterator[_Chunk]:
    position = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            raise InvalidImage("PNG: truncated, expected its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = _Chunk(kind, position, position + 8, position + 12 + length)
        if position == len(SIGNATURE) and (kind != b"IHDR" or length != 13):
            raise InvalidImage("PNG: expected an IHDR chunk of 13 bytes at its start")
        yield chunk
        if chunk.end > len(data):
            raise InvalidImage("PNG: truncated within a chunk")
        if kind == b"IEND":
            return
        position = chunk.end
    raise InvalidImage(f"PNG: expected at most {_MAX_CHUNKS} chunks")


def read_header(data: bytes) -> ImageHeader:
    """Read size and orientation (eXIf chunk, wherever it stands).

    The size is known before the chunks behind the header are looked at, so that a picture too large is called
    that even where its data is missing.

    Raises:
        InvalidImage (422): a first chunk that is no header.
    """
    if len(data) < 33:
        raise InvalidImage("PNG: truncated within its header")
    orientation = 1
    width = height = 0
    try:
        for kind, _, payload, end in _chunks(data):
            if kind == b"IHDR" and not width:
                width, height = struct.unpack_from(">II", data, payload)
            elif kind == b"eXIf":
                orientation = exif_orientation(data[payload : end - 4])
                break
    except InvalidImage:
        if not width:
            raise
        # The chunks behind the header are decode's to judge; the header is whole and says what was asked.
    return displayed("PNG", width, height, orientation)


def checked_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Walk what pixels are made from, in order; all else is left out.

    Pillow does not check the checksums of the data chunks.

    Yields:
        Name and payload of each IHDR, PLTE, tRNS, IDAT and IEND.

    Raises:
        InvalidImage (422): truncated, or a checksum that does not fit.
    """
    view = memoryview(data)
    for kind, start, payload, end in _chunks(data):
        if end > len(data):
            raise InvalidImage("PNG: truncated within a chunk")
        if kind in _PIXEL_CHUNKS:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[start + 4 : end - 4]) != checksum:
                raise InvalidImage(f"PNG: corrupt, the checksum of an {kind.decode()} chunk does not fit")
            yield kind, view[payload : end - 4]


def write_chunk(kind: bytes, payload: bytes | memoryview) -> bytes:
    """Make a chunk: length, name, payload, checksum."""
    return b"".join(
        [struct.pack(">I", len(payload)), kind, payload, struct.pack(">I", zlib.crc32(payload, zlib.crc32(kind)))]
    )


class Essence(NamedTuple):
    """A PNG reduced to its pixels.

    Attributes:
        data: a PNG with the pixel chunks only.
        bit_depth: 1, 2, 4, 8 or 16.
        key: the sample values (1 for grey, 3 for RGB, in bit_depth bits) that mean transparent; None if none do.
    """

    data: bytes
    bit_depth: int
    key: tuple[int, ...] | None


def essence(data: bytes) -> Essence:
    """Check the checksums of what pixels are made from, and leave out everything else.

    Raises:
        InvalidImage (422): truncated, no data, or a checksum that does not fit.
    """
    kept = [SIGNATURE]
    transparency = b""
    bit_depth, color_type = data[24], data[25]
    for kind, payload in checked_chunks(data):
        if kind == b"tRNS":
            transparency = bytes(payload)
        if kind != b"tRNS" or color_type == 3:
            kept.append(write_chunk(kind, payload))
    samples = {0: 1, 2: 3}.get(color_type)
    key = None
    if samples is not None and len(transparency) == 2 * samples:
        key = tuple(value & ((1 << bit_depth) - 1) for value in struct.unpack(f">{samples}H", transparency))
    return Essence(b"".join(kept), bit_depth, key)

"""WebP: its header, from the RIFF chunks. Nothing about other formats belongs here."""

from __future__ import annotations

import struct

from service.codecs.header import ImageHeader, displayed, exif_orientation
from service.errors import InvalidImage

_MAX_CHUNKS = 100_000  # an animation has a few a frame


def matches(data: bytes) -> bool:
    """Whether this is a RIFF file of form WEBP."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_header(data: bytes) -> ImageHeader:
    """Read the size (of the canvas, for the extended format) and orientation (EXIF chunk).

    Source: RFC 9649, sections 2.5 to 2.7.

    Raises:
        InvalidImage (422): the first chunk is no picture, or is truncated.
    """
    try:
        kind, payload = data[12:16], 20
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
            if len(data) < 30:
                raise InvalidImage("WebP: truncated within its header")
            return displayed("WebP", width, height, _orientation(data))
        if kind == b"VP8L":
            signature, bits = struct.unpack_from("<BI", data, payload)
            if signature != 0x2F:
                raise InvalidImage("WebP: broken lossless header")
            return displayed("WebP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        if kind == b"VP8 ":
            if data[payload + 3 : payload + 6] != b"\x9d\x01\x2a":
                raise InvalidImage("WebP: broken lossy header")
            width, height = struct.unpack_from("<HH", data, payload + 6)
            return displayed("WebP", width & 0x3FFF, height & 0x3FFF)
    except struct.error as error:
        raise InvalidImage("WebP: truncated within its header") from error
    raise InvalidImage("WebP: expected a VP8, VP8L or VP8X chunk first")


def _orientation(data: bytes) -> int:
    if not data[20] & 0x08:  # the flag that an EXIF chunk follows
        return 1
    position = 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(data):
            return 1
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
    raise InvalidImage(f"WebP: expected at most {_MAX_CHUNKS} chunks")

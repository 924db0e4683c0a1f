"""GIF: the size of its first frame. Nothing about other formats belongs here."""

from __future__ import annotations

import struct

from service.codecs.header import ImageHeader, displayed
from service.errors import InvalidImage

SIGNATURES = (b"GIF87a", b"GIF89a")

_EXTENSION, _IMAGE = 0x21, 0x2C
_MAX_BLOCKS = 100_000  # of extensions before the first frame, 255 bytes each; both this walk and Pillow's are in Python


def read_header(data: bytes) -> ImageHeader:
    """Read the size: the logical screen's, or as far as the first frame reaches where that is more, as Pillow has it.

    Raises:
        InvalidImage (422): no frame, or truncated before it.
    """
    try:
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        blocks = 0
        while data[position] == _EXTENSION:
            position += 2
            while length := data[position]:
                position += 1 + length
                blocks += 1
                if blocks > _MAX_BLOCKS:
                    raise InvalidImage(f"GIF: expected at most {_MAX_BLOCKS} blocks before the first frame")
            position += 1
        if data[position] != _IMAGE:
            raise InvalidImage("GIF: expected a frame, found none")
        left, top, frame_width, frame_height = struct.unpack_from("<4H", data, position + 1)
    except (IndexError, struct.error) as error:
        raise InvalidImage("GIF: truncated before its first frame") from error
    return displayed("GIF", max(width, left + frame_width), max(height, top + frame_height))

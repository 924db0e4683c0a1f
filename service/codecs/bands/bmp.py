"""BMP in bands of rows: rows lie at fixed distances, so that some of them with the header before them are a BMP again."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from service.errors import InvalidImage

_CORE_HEADER = 12
_UNCOMPRESSED = frozenset({0, 3, 6})  # BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS


def is_sequential(data: bytes) -> bool:
    """Whether rows are uncompressed."""
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    return header_bytes == _CORE_HEADER or struct.unpack_from("<I", data, 30)[0] in _UNCOMPRESSED


def slices(data: bytes, band_pixels: int) -> Iterator[bytes]:
    """Cut a BMP that is_sequential into BMPs of some of its rows each, of one or up to band_pixels.

    They come from top to bottom, though most files have them upside down.

    Raises:
        InvalidImage (422): truncated.
    """
    (pixels_at, header_bytes) = struct.unpack_from("<II", data, 10)
    core = header_bytes == _CORE_HEADER
    width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
    (bits,) = struct.unpack_from("<H", data, 24 if core else 28)
    row_bytes = -(-width * bits // 32) * 4
    count = abs(height)
    if pixels_at < 14 + header_bytes or pixels_at + count * row_bytes > len(data):
        raise InvalidImage(f"BMP: truncated, expected {count} rows of {row_bytes} bytes from byte {pixels_at} on")
    band_rows = max(1, band_pixels // max(1, width))
    for top in range(0, count, band_rows):
        rows = min(band_rows, count - top)
        first = top if height < 0 else count - top - rows
        start = pixels_at + first * row_bytes
        head = bytearray(data[:pixels_at])
        struct.pack_into("<H" if core else "<i", head, 20 if core else 22, rows if height > 0 else -rows)
        yield bytes(head) + data[start : start + rows * row_bytes]

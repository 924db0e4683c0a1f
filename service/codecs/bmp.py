"""BMP: its header. Nothing about other formats belongs here."""

from __future__ import annotations

import struct

from service.codecs.header import ImageHeader, displayed
from service.errors import InvalidImage

SIGNATURE = b"BM"

_CORE_HEADER = 12  # bytes of OS/2's BITMAPCOREHEADER; every later one begins as Windows' BITMAPINFOHEADER (40)
_RLE8, _RLE4 = 1, 2
# Pillow decodes run lengths in Python, byte by byte where a row is cut short, and holds the interpreter's lock meanwhile:
# 60 megapixels out of 4 kB take nine seconds. These limits keep it below one.
_MAX_RUN_LENGTH_BYTES, _MAX_RUN_LENGTH_PIXELS = 2 << 20, 4 << 20


def read_header(data: bytes) -> ImageHeader:
    """Read the size.

    Raises:
        InvalidImage (422): truncated within the header, an unknown header, or run-length data of more than 2 MiB or 4 Mi pixels.
    """
    try:
        (header_bytes,) = struct.unpack_from("<I", data, 14)
        if header_bytes == _CORE_HEADER:
            width, height = struct.unpack_from("<HH", data, 18)
        elif 40 <= header_bytes <= 124:
            width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
            if compression in {_RLE8, _RLE4}:
                _check_run_lengths(len(data), width * abs(height))
        else:
            raise InvalidImage(f"BMP: expected a header of 12 or 40 to 124 bytes, it says {header_bytes}")
    except struct.error as error:
        raise InvalidImage("BMP: truncated within its header") from error
    return displayed("BMP", width, abs(height))  # a negative height: rows from top to bottom


def _check_run_lengths(data_bytes: int, pixels: int) -> None:
    if data_bytes > _MAX_RUN_LENGTH_BYTES or pixels > _MAX_RUN_LENGTH_PIXELS:
        raise InvalidImage(
            f"BMP: expected run-length data of at most {_MAX_RUN_LENGTH_BYTES} bytes and {_MAX_RUN_LENGTH_PIXELS} pixels,"
            f" got {data_bytes} and {pixels}; store it without compression"
        )

"""What an image's header says: its format, its size as displayed, and how its stored pixels must be turned.

Nothing that touches pixels belongs here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from service.errors import InvalidImage

Pixels = npt.NDArray[np.uint8]
Channels = Literal["RGB", "L"]
Format = Literal["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"]

ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A; the same tag in TIFF 6.0
_SHORT, _LONG = 3, 4  # TIFF 6.0, section 2: field types


@dataclass(frozen=True)
class ImageHeader:
    """An image's format and size, known without decoding a pixel.

    Attributes:
        format: by content; the name a client sent along plays no part.
        width: pixels as displayed, that is after `orientation`; >= 1.
        height: likewise.
        orientation: EXIF orientation 1…8 of the stored pixels; 1 is upright, 5…8 swap width and height.
    """

    format: Format
    width: int
    height: int
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def displayed(image_format: Format, stored_width: int, stored_height: int, orientation: int = 1) -> ImageHeader:
    """Make the header of an image whose pixels are stored as stored_height rows of stored_width.

    Raises:
        InvalidImage (422): a side of no pixels.
    """
    if stored_width < 1 or stored_height < 1:
        raise InvalidImage(
            f"{image_format}: expected at least 1x1 pixel, the header says {stored_width}x{stored_height}"
        )
    if orientation >= 5:
        return ImageHeader(image_format, stored_height, stored_width, orientation)
    return ImageHeader(image_format, stored_width, stored_height, orientation)


def exif_orientation(exif: bytes) -> int:
    """Find the orientation in EXIF data, 1 where it has none.

    One tag is looked up in the first directory and nothing else is read, so that a directory built to explode (a thousand
    tags that all claim the same megabytes) costs nothing. Broken EXIF data counts as none, as in browsers: the pixels
    are whole, and many cameras and editors write such.

    Args:
        exif: a TIFF header and its directories, with or without its leading name ("Exif" and two zeros).

    Returns:
        1…8.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return 1
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    if directory + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", exif, entry)
        if tag == ORIENTATION_TAG and kind in {_SHORT, _LONG} and values == 1:
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), exif, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(stored: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels upright: a view, (H, W, C) or (W, H, C). Source: EXIF 2.32, 4.6.4 A, orientation."""
    pixels = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels

"""Pictures row by row, for those that are too large to be decoded at once: the same pixels as `images.decode` gives.

JPEG is read by libvips, which goes through libjpeg-turbo's rows. A PNG, TIFF or BMP is cut into small files of its own kind, which
`images.decode` decodes. What cannot be cut is decoded whole, as far as `max_pixels` allows it: GIF, WebP, interlaced PNG, TIFF in
one compressed strip, run-length BMP, JPEG with arithmetic codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.codecs import images
from service.codecs.bands import bmp, jpeg, png, tiff
from service.codecs.header import Channels, ImageHeader, Pixels
from service.errors import PayloadTooLarge

_BAND_PIXELS = 2**18
"""Of a band; a megabyte or two with all that decoding takes. More is not faster."""

_COEFFICIENT_BYTES = 6
"""A pixel of a progressive JPEG at 4:4:4: three components of 16 bits."""


@dataclass(frozen=True)
class Rows:
    """A picture that comes in bands of rows.

    Attributes:
        header: its size as displayed, and how its stored pixels must be turned.
        channels: 3 or 1.
        bands: of stored rows, from top to bottom, uint8 (n, W, C) with W as stored; the last one ends the picture. While
            it goes on it raises what `images.decode` would have raised, once it gets to the damaged place.
    """

    header: ImageHeader
    channels: int
    bands: Iterator[Pixels]


def open_rows(data: bytes, *, channels: Channels, max_pixels: int, max_tiled_pixels: int) -> Rows:
    """Begin to decode.

    Args:
        data: the encoded image.
        channels: "RGB", or "L" for grey.
        max_pixels: of what has to be decoded at once; and a progressive JPEG, which has to be held in coefficients until
            its last scan, may take as much memory as one of this many pixels.
        max_tiled_pixels: limit on width · height.

    Raises:
        Malformed (400), UnsupportedMediaType (415), InvalidImage (422): as `images.decode`.
        PayloadTooLarge (413): more than max_tiled_pixels; or more than max_pixels, and not to be had in rows.
    """
    header = images.read_header(data)
    pixels = header.width * header.height
    if pixels > max_tiled_pixels:
        raise PayloadTooLarge(
            f"expected at most {max_tiled_pixels} pixels, the image has {header.width}x{header.height}"
        )
    count = 3 if channels == "RGB" else 1
    if header.format == "JPEG" and jpeg.frame(data).readable:
        return Rows(header, count, jpeg.read_bands(data, channels, _BAND_PIXELS, _COEFFICIENT_BYTES * max_pixels))
    slices = _slices(data, header, max_pixels)
    if slices is not None:
        return Rows(header, count, (images.decode(part, channels=channels, max_pixels=max_pixels) for part in slices))
    if pixels > max_pixels:
        raise PayloadTooLarge(
            f"expected at most {max_pixels} pixels of a {header.format} that cannot be decoded row by row,"
            f" the image has {header.width}x{header.height}"
        )
    whole = images.decode(data, channels=channels, max_pixels=max_pixels)
    return Rows(ImageHeader(header.format, header.width, header.height), count, iter([whole]))


def _slices(data: bytes, header: ImageHeader, max_pixels: int) -> Iterator[bytes] | None:
    """Cut a file into small ones; None where that cannot be done."""
    band_pixels = min(_BAND_PIXELS, max_pixels)
    if header.stored_size[0] > max_pixels:
        return None
    if header.format == "TIFF":
        layout = tiff.layout(data)
        if layout is None or layout.piece_rows * layout.width > max_pixels:
            return None
        return tiff.slices(data, layout, band_pixels)
    kind = {"PNG": png, "BMP": bmp}.get(header.format)
    return kind.slices(data, band_pixels) if kind and kind.is_sequential(data) else None

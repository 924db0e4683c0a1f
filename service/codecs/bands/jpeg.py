"""JPEG in bands of rows, by libvips, which reads it with the same libjpeg-turbo code as simplejpeg: the pixels are equal.

libjpeg is told what `service.codecs.jpeg` has it do by its interface: the file's application segments, which say how colours are
coded, are left out and one that says it anew takes their place. So grey is the luma that is stored, and no EXIF data, profile or
thumbnail is looked at.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from threading import Lock
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from service.codecs import jpeg
from service.codecs.header import Channels, Pixels
from service.errors import InvalidImage, PayloadTooLarge

_APP0, _APP14, _APP15, _COMMENT = 0xE0, 0xEE, 0xEF, 0xFE
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2  # ITU-T T.81, table B.1: sequential or not, Huffman codes
_SAMPLES_OF_BLOCK = 64
_ROWS_AT_ONCE = 8  # libvips reads so many; where more are asked for its buffers grow, and it gets no faster

_LOCK = Lock()
"""libvips gathers what libjpeg warns of in one place for the whole process; emptied under the lock, it is this picture's."""

Coding = Literal["grey", "RGB", "YCbCr", "CMYK", "YCCK"]


class Frame(NamedTuple):
    """What decides how a JPEG can be read.

    Attributes:
        coding: of its colours, as libjpeg takes it.
        sequential: whether rows come in the order of the file; else the whole picture must be held in coefficients.
        readable: whether libvips reads it at all; arithmetic codes and lossless JPEG it does not.
        coefficient_bytes: of the whole picture, 2 a coefficient.
    """

    coding: Coding
    sequential: bool
    readable: bool
    coefficient_bytes: int


def frame(data: bytes) -> Frame:
    """Read what the segments before the first scan say.

    Raises:
        InvalidImage (422): broken or truncated before the first scan, or of another number of components than 1, 3, 4.
    """
    kind = components = scanned = coefficients = 0
    names = b""
    jfif = False
    transform: int | None = None
    for marker, _, payload, end in jpeg.segments(data):
        if marker in jpeg.START_OF_FRAME:
            kind, components = marker, data[payload + 5]
            parts = data[payload + 6 : end]
            if components not in {1, 3, 4} or len(parts) < 3 * components:
                raise InvalidImage(f"JPEG: expected 1, 3 or 4 components, got {components}")
            names = parts[: 3 * components : 3]
            sampling = [(parts[3 * i + 1] >> 4, parts[3 * i + 1] & 15) for i in range(components)]
            height, width = struct.unpack_from(">HH", data, payload + 1)
            coefficients = _SAMPLES_OF_BLOCK * _blocks(height, width, sampling)
        elif marker == _APP0 and data.startswith(b"JFIF\0", payload, end) and end - payload >= 14:
            jfif = True
        elif marker == _APP14 and data.startswith(b"Adobe", payload, end) and end - payload >= 12:
            transform = data[payload + 11]
        elif marker == jpeg.START_OF_SCAN:
            scanned = data[payload]
    coding = _coding(components, names, transform, jfif)
    sequential = kind in {_BASELINE, _EXTENDED} and scanned == components
    return Frame(coding, sequential, kind in {_BASELINE, _EXTENDED, _PROGRESSIVE}, 2 * coefficients)


def _blocks(height: int, width: int, sampling: list[tuple[int, int]]) -> int:
    """Count the 8×8 blocks of all components, each rounded up to whole units. Source: ITU-T T.81, A.2.4."""
    across, down = max(h for h, _ in sampling), max(v for _, v in sampling)
    if not all(h and v for h, v in sampling):
        raise InvalidImage("JPEG: expected sampling factors of 1 to 4, got 0")
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return units * sum(h * v for h, v in sampling)


def _coding(components: int, names: bytes, transform: int | None, jfif: bool) -> Coding:
    """Decide as libjpeg does (jdapimin.c, default_decompress_parms)."""
    if components == 1:
        return "grey"
    if components == 4:
        return "CMYK" if transform in {None, 0} else "YCCK"
    if not jfif and (transform == 0 or (transform is None and names == b"RGB")):
        return "RGB"
    return "YCbCr"


def read_bands(data: bytes, channels: Channels, band_pixels: int, max_coefficient_bytes: int) -> Iterator[Pixels]:
    """Decode from top to bottom, as stored, the orientation not applied.

    Args:
        data: the file.
        channels: "RGB", or "L" for grey.
        band_pixels: of a band of more than 8 rows.
        max_coefficient_bytes: of a file whose scans do not hold whole pixels (progressive ones).

    Yields:
        uint8 (n, W, 3) or (n, W, 1), n · W at most band_pixels, or n = 8.

    Raises:
        InvalidImage (422): truncated or corrupt, as soon as the damaged place is reached.
        PayloadTooLarge (413): more than max_coefficient_bytes.
    """
    found = frame(data)
    if not found.sequential and found.coefficient_bytes > max_coefficient_bytes:
        raise PayloadTooLarge(
            f"expected a baseline JPEG, or a progressive one whose coefficients take at most {max_coefficient_bytes} bytes;"
            f" this one's take {found.coefficient_bytes}, and have to be held all at once"
        )
    jpeg.refuse_many_scans(data)
    for band in _read(data, found.coding, channels, band_pixels):
        yield _convert(band, found.coding, channels)
    jpeg.refuse_without_end(data)


def _read(data: bytes, coding: Coding, channels: Channels, band_pixels: int) -> Iterator[Pixels]:
    os.environ.setdefault("VIPS_WARNING", "off")  # _check_warnings says them; else they go to standard error as well
    import pyvips  # type: ignore[import-untyped]  # here: 18 MB of library, not before the first picture that needs it

    pyvips.cache_set_max(0)  # it would keep sources, and so whole files
    source = pyvips.SourceCustom()
    source.on_read(_Pieces(data, coding, channels).read)
    width, height = jpeg.read_header(data).stored_size
    try:
        with _LOCK:
            image = pyvips.Image.jpegload_source(source, access="sequential", fail_on="error", unlimited=True)
            if (image.width, image.height) != (width, height):
                raise InvalidImage("JPEG: its headers contradict each other about its size")
            region = pyvips.Region.new(image)
        rows = max(1, band_pixels // (width * _ROWS_AT_ONCE)) * _ROWS_AT_ONCE
        for top in range(0, height, rows):
            band_rows = min(rows, height - top)
            with _LOCK:
                pixels = np.frombuffer(region.fetch(0, top, width, band_rows), np.uint8)
                _check_warnings(pyvips.Error("").detail)
            yield pixels.reshape(band_rows, width, image.bands)
    except pyvips.Error as error:
        raise InvalidImage("JPEG: truncated or corrupt") from error


def _check_warnings(words: str) -> None:
    """Take every warning of libjpeg's for damage, but those that `service.codecs.jpeg` passes over too."""
    if words and not (any(known in words for known in jpeg.LEFT_TO_PILLOW) or jpeg.PADDED_END.search(words)):
        raise InvalidImage(f"JPEG: truncated or corrupt ({words.strip()})")


def _convert(band: Pixels, coding: Coding, channels: Channels) -> Pixels:
    """Make of what `_Pieces` has libjpeg give what was asked for."""
    if coding in {"CMYK", "YCCK"}:  # libvips has inverted it: Adobe's values
        picture = Image.fromarray(band, "CMYK").convert("RGB")
    elif coding == "YCbCr" and channels == "L":
        return band[..., :1]  # Y
    elif coding == "grey" and channels == "RGB":
        return np.repeat(band, 3, axis=2)
    elif coding == "RGB" and channels == "L":
        picture = Image.fromarray(band, "RGB")
    else:
        return band
    return np.asarray(picture.convert(channels)).reshape(*band.shape[:2], -1)


class _Pieces:
    """The file as libjpeg is to see it; read in order, not copied."""

    def __init__(self, data: bytes, coding: Coding, channels: Channels) -> None:
        # Adobe Technical Note 5116, section 18. Transform 0: components are given as they are stored, so that the first
        # of YCbCr is luma.
        transform = {"YCbCr": 0 if channels == "L" else 1, "YCCK": 2}.get(coding, 0)
        adobe = struct.pack(">HH5sHHHB", 0xFF00 | _APP14, 14, b"Adobe", 100, 0, 0, transform)
        head = [b"\xff\xd8", adobe if coding != "grey" else b""]
        rest = memoryview(data)
        for marker, start, _, end in jpeg.segments(data):
            if marker == jpeg.START_OF_SCAN:
                rest = rest[start:]
            elif not _APP0 <= marker <= _APP15 and marker != _COMMENT:
                head.append(data[start:end])
        self._pieces = [memoryview(b"".join(head)), rest]

    def read(self, size: int) -> bytes:
        """Give up to so many bytes; none at the end."""
        while self._pieces:
            piece = self._pieces[0]
            if piece:
                self._pieces[0] = piece[size:]
                return bytes(piece[:size])
            del self._pieces[0]
        return b""

"""JPEG: its header, and its pixels by libjpeg-turbo (simplejpeg). docs/decoders.md says why.

Nothing about other formats belongs here.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]  # compiled, without stubs
from PIL import Image

from service.codecs.header import ImageHeader, displayed, exif_orientation
from service.errors import InvalidImage

SIGNATURE = b"\xff\xd8\xff"

# ITU-T T.81, table B.1.
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_COMMENT = 0xFE

_MAX_SEGMENTS = 10_000  # an ICC profile has at most 255, extended XMP of 64 MB about 1 000
# A progressive scan of a few hundred bytes makes the decoder pass over every coefficient of the picture, so scans, not
# bytes, are what a hostile file spends. libjpeg's own default script has 10.
_MAX_SCANS = 100

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")

# What libjpeg (jerror.h) warns of that leaves every pixel as it was meant; all its other warnings mean damaged data.
# And what TurboJPEG's interface has no name for, though libjpeg reads it.
LEFT_TO_PILLOW = (
    "Could not determine subsampling",
    "Invalid SOS parameters for sequential JPEG",  # some Samsung phones; libvips issue 2309
    "Unknown Adobe color transform code",
    "unknown JFIF revision number",
    "inconsistent ICC",
)
PADDED_END = re.compile(r"extraneous bytes before marker 0xd9")  # zeros behind the last scan: some cameras


class Segment(NamedTuple):
    """A marker segment of the header.

    Attributes:
        marker: its second byte.
        start: of the marker's 0xff.
        payload: behind marker and length.
        end: of the payload.
    """

    marker: int
    start: int
    payload: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Walk the marker segments up to and including the first start of scan.

    Raises:
        InvalidImage (422): broken or truncated before it.
    """
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise InvalidImage("JPEG: expected a start of scan, the data ends before it")
        marker, payload = found[1][0], found.end()
        if marker in _WITHOUT_LENGTH:
            position = payload
            continue
        if marker == _END_OF_IMAGE:
            raise InvalidImage("JPEG: expected a start of scan, an end of image came before it")
        if payload + 2 > len(data):
            raise InvalidImage("JPEG: truncated within its header")
        (length,) = struct.unpack_from(">H", data, payload)
        position = payload + length
        if length < 2 or position > len(data):
            raise InvalidImage("JPEG: a header segment is longer than the data, or its length is broken")
        yield Segment(marker, found.start(), payload + 2, position)
        if marker == START_OF_SCAN:
            return
    raise InvalidImage(f"JPEG: expected at most {_MAX_SEGMENTS} header segments")


class _Frame(NamedTuple):
    width: int
    height: int
    components: int
    orientation: int


def _frame(data: bytes) -> _Frame:
    width = height = components = 0
    orientation = 0
    for marker, _, payload, end in segments(data):
        if marker in START_OF_FRAME:
            if end - payload < 6:
                raise InvalidImage("JPEG: frame header too short")
            precision, height, width, components = struct.unpack_from(">BHHB", data, payload)
            if precision != 8:
                raise InvalidImage(f"JPEG: expected 8 bits a sample, got {precision}")
        elif marker == _APP1 and not orientation and data.startswith(b"Exif\0\0", payload, end):
            orientation = exif_orientation(data[payload:end])
    if not components:
        raise InvalidImage("JPEG: expected a frame header before the first scan, found none")
    return _Frame(width, height, components, orientation or 1)


def read_header(data: bytes) -> ImageHeader:
    """Read size and orientation from the marker segments before the first scan.

    Raises:
        InvalidImage (422): broken or truncated before the first scan, or not 8 bits a sample.
    """
    frame = _frame(data)
    return displayed("JPEG", frame.width, frame.height, frame.orientation)


def decode(data: bytes, channels: Literal["RGB", "L"]) -> npt.NDArray[np.uint8]:
    """Decode a JPEG as it is stored, its orientation not applied.

    Grey is the luma that the file itself stores. It differs from luma computed of the decoded RGB only by rounding, and
    where a saturated colour was clipped; chroma is then never decoded (docs/decoders.md has the figures).

    Four components are CMYK or YCCK with Adobe's inverted values, as every decoder assumes.

    Returns:
        (H, W, 3) for "RGB", (H, W, 1) for "L".

    Raises:
        InvalidImage (422): truncated or corrupt, even where a partial picture could be had.
    """
    frame = _frame(data)
    refuse_many_scans(data)
    colorspace = "CMYK" if frame.components == 4 else "GRAY" if channels == "L" else "RGB"
    try:
        # libjpeg's own reading of the header decides how much memory is taken, so it is asked before that.
        size = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
        pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=True) if size == frame[1::-1] else None
    except KeyError:  # simplejpeg has no name for this subsampling
        return _decode_by_pillow(data, frame, channels)
    except ValueError as error:
        reason = str(error)
        if any(known in reason for known in LEFT_TO_PILLOW) or PADDED_END.search(reason):
            return _decode_by_pillow(data, frame, channels)
        raise InvalidImage(f"JPEG: truncated or corrupt ({reason})") from error
    if pixels is None:
        raise InvalidImage("JPEG: its headers contradict each other about its size")
    if frame.components == 4:
        inverted = Image.fromarray(255 - pixels, "CMYK")
        return _array(inverted, channels)
    return np.asarray(pixels, np.uint8)


def _decode_by_pillow(data: bytes, frame: _Frame, channels: Literal["RGB", "L"]) -> npt.NDArray[np.uint8]:
    """Decode what TurboJPEG's interface refuses: any subsampling, libjpeg's warnings passed over, truncation reported.

    About half as fast.

    It gets the file without its metadata, which Pillow would parse.
    """
    kept = [b"\xff\xd8"]
    for marker, start, _, end in segments(data):
        if marker == START_OF_SCAN:
            kept.append(data[start:])
        elif not (_APP1 <= marker <= _APP15 and marker != _APP14) and marker != _COMMENT:
            kept.append(data[start:end])
    try:
        with Image.open(io.BytesIO(b"".join(kept)), formats=("JPEG",)) as image:
            if image.size != frame[:2]:
                raise InvalidImage("JPEG: its headers contradict each other about its size")
            if channels == "L":
                image.draft("L", None)  # the luma that is stored, as above
            return _array(image, channels)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage("JPEG: truncated or corrupt") from error


def _array(image: Image.Image, channels: Literal["RGB", "L"]) -> npt.NDArray[np.uint8]:
    if image.mode == "CMYK":
        image = image.convert("RGB")
    pixels = np.asarray(image.convert(channels))
    return pixels if channels == "RGB" else pixels[:, :, None]


def refuse_without_end(data: bytes) -> None:
    """Refuse a file whose scans nothing ends, of which a decoder of rows may have seen all that it looks for.

    Raises:
        InvalidImage (422): no marker of the end of the image behind the first scan.
    """
    *_, first = segments(data)
    if data.rfind(bytes((0xFF, _END_OF_IMAGE)), first.start) < 0:
        raise InvalidImage("JPEG: truncated or corrupt (Premature end of JPEG file)")


def refuse_many_scans(data: bytes) -> None:
    """Refuse a file that would have the decoder go over the picture more than 100 times.

    Raises:
        InvalidImage (422): it has more scans.
    """
    if data.count(b"\xff\xda") <= _MAX_SCANS:  # exact only if no thumbnail or trailing video has the same bytes
        return
    *_, first = segments(data)
    position, scans = first.start, 0
    while (found := _MARKER_IN_SCAN.search(data, position)) is not None and found[1][0] != _END_OF_IMAGE:
        scans += found[1][0] == START_OF_SCAN
        if scans > _MAX_SCANS:
            raise InvalidImage(f"JPEG: expected at most {_MAX_SCANS} scans")
        position = found.end()

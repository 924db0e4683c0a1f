from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.codecs import jpeg
from service.codecs.header import exif_orientation
from service.codecs.images import decode, read_header
from service.errors import InvalidImage, PayloadTooLarge
from tests.pictures import chunk, encode, exif, lossless, noise, png, png_header, stored_as, textured, tiff

LIMIT = 1_000_000
LIMIT = 1_000_000


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "WebP", "TIFF"])
def test_orientation_is_honoured_exactly(image_format: str, orientation: int, rng: np.random.Generator) -> None:
    upright = noise(20, 33, 3, rng)
    data = lossless(stored_as(upright, orientation), image_format, exif=exif(orientation))
    header = read_header(data)
    assert (header.height, header.width) == (20, 33)
    np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=20 * 33), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_orientation_of_jpeg_is_pillows(orientation: int, channels: Any, rng: np.random.Generator) -> None:
    upright = textured(40, 56, int(rng.integers(2**32)))
    data = encode(stored_as(upright, orientation), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    decoded = decode(data, channels=channels, max_pixels=LIMIT)
    header = read_header(data)
    assert (header.height, header.width) == (40, 56) == decoded.shape[:2]
    with Image.open(io.BytesIO(data)) as image:
        turned = np.asarray(ImageOps.exif_transpose(image).convert(channels)).reshape(decoded.shape)
    assert np.abs(decoded.astype(int) - turned).max() <= (2 if channels == "RGB" else 30)
    assert np.abs(decoded.astype(int) - turned).mean() <= 0.5


def test_orientation_behind_png_data_counts(rng: np.random.Generator) -> None:
    upright = noise(5, 8, 3, rng)
    data = png(stored_as(upright, 6))
    data = data[:-12] + chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")) + data[-12:]
    np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=LIMIT), upright)


@given(data=st.binary(max_size=200), marked=st.booleans())
def test_broken_exif_is_no_orientation_and_no_error(data: bytes, marked: bool) -> None:
    assert 1 <= exif_orientation((b"Exif\0\0II*\0\x08\0\0\0" if marked else b"") + data) <= 8


def jpeg_claiming(width: int, height: int) -> bytes:
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 17, 8, height, width, 3) + bytes([1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0])
    return b"\xff\xd8" + frame + b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0" + b"\0" * 20


def webp_claiming(width: int, height: int) -> bytes:
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_claiming(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b","
        + struct.pack("<4HB", 0, 0, width, height, 0)
        + b"\x02\0;"
    )


def bmp_claiming(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 60, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, *[0] * 6)


def tiff_claiming(width: int, height: int) -> bytes:
    return tiff(np.zeros((1, 1, 3), np.uint8), tags={256: (width,), 257: (height,)})


CLAIMING: dict[str, Callable[[int, int], bytes]] = {
    "PNG": png_header,
    "JPEG": jpeg_claiming,
    "WebP": webp_claiming,
    "GIF": gif_claiming,
    "BMP": bmp_claiming,
    "TIFF": tiff_claiming,
}


@pytest.mark.parametrize("image_format", CLAIMING)
def test_claim_of_60000_by_60000_is_refused_before_any_decoder_runs(
    image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a decoder was called")

    monkeypatch.setattr(Image, "open", forbidden)
    monkeypatch.setattr(Image, "new", forbidden)
    monkeypatch.setattr(jpeg.simplejpeg, "decode_jpeg", forbidden)
    data = CLAIMING[image_format](60_000, 60_000)
    assert len(data) < 300
    header = read_header(data)
    assert (header.format, header.width, header.height) == (image_format, 60_000, 60_000)
    with pytest.raises(PayloadTooLarge, match="60000x60000"):
        decode(data, channels="RGB", max_pixels=200_000_000)


@pytest.mark.parametrize("image_format", CLAIMING)
def test_claim_within_the_limit_and_without_data_is_invalid(image_format: str) -> None:
    with pytest.raises(InvalidImage):
        decode(CLAIMING[image_format](600, 600), channels="RGB", max_pixels=LIMIT)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP", "TIFF"])
def test_no_pixels_are_invalid(image_format: str) -> None:
    with pytest.raises(InvalidImage):
        read_header(CLAIMING[image_format](0, 10))

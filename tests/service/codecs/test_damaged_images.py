from __future__ import annotations

import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.codecs.images import decode, read_header
from service.errors import InvalidImage, Malformed, PayloadTooLarge, ServiceError, UnsupportedMediaType
from tests.pictures import (
    Picture,
    chunk,
    encode,
    gallery,
    noise,
    png,
    textured,
    tiff,
)

LIMIT = 1_000_000
# In production the codec has Pillow's warnings ignored; pytest puts its own filters over that.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


# What is not an image


def test_nothing_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_header(b"")
    with pytest.raises(Malformed):
        decode(b"", channels="RGB", max_pixels=LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"hello, this is no image",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!DOCTYPE html>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"icns\0\0\1\0",
        b"\0\0\1\0\1\0",
        b"P6 1 1 255\n\0\0\0",
        b"http://169.254.169.254/latest/meta-data",
        b"file:///etc/passwd",
    ],
)
def test_other_content_is_an_unsupported_media_type(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="JPEG, PNG, WebP, GIF, BMP, TIFF"):
        decode(data, channels="RGB", max_pixels=LIMIT)


def test_jpeg2000_and_avif_are_not_read_though_pillow_could(rng: np.random.Generator) -> None:
    for image_format in ("JPEG2000", "AVIF", "ICO", "PPM", "TGA"):
        with pytest.raises(UnsupportedMediaType):
            decode(encode(noise(16, 16, 3, rng), image_format), channels="RGB", max_pixels=LIMIT)


@pytest.mark.parametrize("mode", ["F", "I", "LAB"])
def test_tiff_of_other_numbers_is_invalid_and_said_so(mode: str) -> None:
    with pytest.raises(InvalidImage, match="1 to 16 bits"):
        decode(encode(Image.new(mode, (8, 8)), "TIFF"), channels="RGB", max_pixels=LIMIT)


# What is damaged


def damaged_samples(seed: int) -> list[Picture]:
    """One of each format and mode, and JPEGs, all small."""
    pictures = gallery(seed, 24, 31)
    for name, options in {"baseline": {}, "progressive": {"progressive": True}, "grey": {"mode": "L"}}.items():
        pixels = textured(64, 80, seed)
        data = encode(pixels[..., 0] if name == "grey" else pixels, "JPEG", quality=88, **options)
        pictures.append(Picture(f"jpeg-{name}", "JPEG", data, decode(data, channels="RGB", max_pixels=LIMIT)))
    return pictures


def test_truncation_anywhere_is_invalid_or_behind_the_pixels(rng: np.random.Generator) -> None:
    for picture in damaged_samples(int(rng.integers(2**32))):
        for tenth in range(1, 10):
            cut = picture.data[: max(16, len(picture.data) * tenth // 10)]
            try:
                decoded = decode(cut, channels="RGB", max_pixels=LIMIT)
            except InvalidImage:
                continue
            np.testing.assert_array_equal(decoded, picture.rgb, err_msg=f"{picture.name}, {tenth}/10")


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("missing", [1, 2, 3, 20])
def test_jpeg_without_its_last_bytes_is_invalid(missing: int, progressive: bool, rng: np.random.Generator) -> None:
    data = encode(textured(64, 80, int(rng.integers(2**32))), "JPEG", progressive=progressive)
    with pytest.raises(InvalidImage, match="truncated"):
        decode(data[:-missing], channels="RGB", max_pixels=LIMIT)


def test_jpeg_with_bytes_behind_its_end_is_whole(rng: np.random.Generator) -> None:
    data = encode(textured(64, 80, int(rng.integers(2**32))), "JPEG")
    expected = decode(data, channels="RGB", max_pixels=LIMIT)
    for extra in (b"\0" * 7, b"\xff\xd8 another", rng.bytes(1000)):
        np.testing.assert_array_equal(decode(data + extra, channels="RGB", max_pixels=LIMIT), expected)


def test_jpeg_padded_before_its_end_is_whole(rng: np.random.Generator) -> None:
    data = encode(textured(64, 80, int(rng.integers(2**32))), "JPEG")
    expected = decode(data, channels="RGB", max_pixels=LIMIT)
    padded = data[:-2] + bytes(9) + data[-2:]
    np.testing.assert_array_equal(decode(padded, channels="RGB", max_pixels=LIMIT), expected)


def test_jpeg_with_a_harmless_warning_is_read_and_truncated_still_refused(rng: np.random.Generator) -> None:
    """Some phones write Se = 0 in a sequential scan: libjpeg warns, and every pixel is right."""
    data = encode(textured(64, 80, int(rng.integers(2**32))), "JPEG")
    scan = data.index(b"\xff\xda")
    at = scan + 2 + 12 - 2  # spectral selection's end, the last but one byte of the segment
    assert data[at] == 63
    odd = data[:at] + b"\0" + data[at + 1 :]
    np.testing.assert_array_equal(
        decode(odd, channels="RGB", max_pixels=LIMIT), decode(data, channels="RGB", max_pixels=LIMIT)
    )
    with pytest.raises(InvalidImage):
        decode(odd[: len(odd) * 6 // 10], channels="RGB", max_pixels=LIMIT)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
def test_png_with_a_wrong_checksum_is_invalid(kind: bytes, rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (20, 20), dtype=np.uint8))
    image.putpalette(rng.bytes(768))
    data = bytearray(encode(image, "PNG", transparency=3))
    at = data.index(kind)
    (length,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + length] ^= 1
    with pytest.raises(InvalidImage, match=f"checksum of an {kind.decode()}"):
        decode(bytes(data), channels="RGB", max_pixels=LIMIT)


def test_any_flipped_bytes_give_pixels_or_a_service_error(rng: np.random.Generator, recwarn: Any) -> None:
    for picture in damaged_samples(int(rng.integers(2**32))):
        for _ in range(25):
            data = bytearray(picture.data)
            reach = len(data) if rng.random() < 0.5 else min(len(data), 200)  # headers are small and matter most
            for at in rng.integers(0, reach, rng.integers(1, 6)):
                data[at] = rng.integers(256)
            channels = "RGB" if rng.random() < 0.5 else "L"
            try:
                decoded = decode(bytes(data), channels=channels, max_pixels=LIMIT)  # type: ignore[arg-type]
            except ServiceError:
                continue
            header = read_header(bytes(data))
            assert decoded.shape == (header.height, header.width, len(channels)), picture.name
            assert decoded.dtype == np.uint8
            assert decoded.flags.c_contiguous


@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]),
)
def test_noise_behind_a_signature_is_a_service_error(data: bytes, start: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ServiceError):
            decode(start + data, channels="RGB", max_pixels=LIMIT)


# What is built to explode


def test_png_text_and_profiles_of_a_gigabyte_cost_nothing(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    pixels = noise(9, 9, 3, rng)
    bomb = zlib.compress(bytes(64 << 20), 9)
    extra = b"".join(
        [
            chunk(b"zTXt", b"k\0\0" + bomb) * 16,
            chunk(b"iCCP", b"p\0\0" + bomb),
            chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
        ]
    )
    inflate = zlib.decompressobj

    def counting(*args: Any) -> Any:
        pytest.fail("something was inflated in Python")
        return inflate(*args)

    monkeypatch.setattr(zlib, "decompressobj", counting)
    monkeypatch.setattr(zlib, "decompress", counting)
    np.testing.assert_array_equal(decode(png(pixels, extra=extra), channels="RGB", max_pixels=LIMIT), pixels)


def test_tiff_of_one_pixel_in_an_enormous_tile_is_too_large() -> None:
    data = tiff(np.zeros((1, 1, 3), np.uint8), tags={322: (60_000,), 323: (60_000,), 324: (8,), 325: (3,)})
    with pytest.raises(PayloadTooLarge, match="tiles"):
        decode(data, channels="RGB", max_pixels=LIMIT)


def test_tiff_that_names_its_size_twice_is_invalid() -> None:
    """One reader believes the first, another the last: 1 pixel would be checked, and 3 600 000 000 decoded."""
    data = bytearray(tiff(np.zeros((1, 1, 3), np.uint8), tags={257: (60_000,), 280: (1,)}))
    at = data.index(struct.pack("<HHI", 280, 4, 1))
    data[at : at + 2] = struct.pack("<H", 257)
    with pytest.raises(InvalidImage, match="twice"):
        decode(bytes(data), channels="RGB", max_pixels=LIMIT)


def test_tags_that_share_bytes_are_not_read(rng: np.random.Generator) -> None:
    """A thousand private tags of the same megabyte: a gigabyte, if each were copied."""
    pixels = noise(5, 5, 3, rng)
    whole = tiff(pixels, tags={60_000 + i: (0,) for i in range(1000)})
    data = bytearray(whole + bytes(1 << 20))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] >= 60_000:
            struct.pack_into("<HII", data, entry + 2, 7, 1 << 20, len(whole))
    tracemalloc.start()
    decoded = decode(bytes(data), channels="RGB", max_pixels=LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(decoded, pixels)
    assert peak < 8 * len(data)


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 1078 + len(runs), 0, 0, 1078) + info + palette + runs


def test_run_length_bmp_is_read_and_a_large_one_refused() -> None:
    """Rows from bottom to top: five 7s, then two 9s and the literals 1, 2, 3; the format pads literals to even length."""
    data = run_length_bmp(5, 2, b"\x05\x07\0\0" + b"\x02\x09" + b"\0\x03\x01\x02\x03\0" + b"\0\x01")
    expected = np.array([[9, 9, 1, 2, 3], [7, 7, 7, 7, 7]])
    np.testing.assert_array_equal(decode(data, channels="L", max_pixels=10)[..., 0], expected)
    with pytest.raises(InvalidImage, match="run-length"):
        read_header(run_length_bmp(60_000, 1_000, b"\x01\x07\0\0" * 1_000))


def test_jpeg_of_a_thousand_scans_is_invalid(rng: np.random.Generator) -> None:
    data = encode(noise(16, 16, 3, rng), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    data = data[:second] + data[first:second] * 1000 + data[second:]
    with pytest.raises(InvalidImage, match="scans"):
        decode(data, channels="RGB", max_pixels=LIMIT)


def test_bytes_that_look_like_scans_outside_the_picture_do_not_count(rng: np.random.Generator) -> None:
    data = encode(textured(32, 32, int(rng.integers(2**32))), "JPEG")
    expected = decode(data, channels="RGB", max_pixels=LIMIT)
    segment = b"\xff\xe7" + struct.pack(">H", 402) + b"\xff\xda" * 200
    appended = data[:2] + segment + data[2:] + b"\xff\xda" * 500
    np.testing.assert_array_equal(decode(appended, channels="RGB", max_pixels=LIMIT), expected)


# Threads


def test_threads_do_not_disturb_each_other(rng: np.random.Generator) -> None:
    pictures = damaged_samples(int(rng.integers(2**32))) * 4

    def equal(picture: Picture) -> bool:
        return np.array_equal(decode(picture.data, channels="RGB", max_pixels=LIMIT), picture.rgb)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(equal, pictures))

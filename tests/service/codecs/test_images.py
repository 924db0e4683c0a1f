from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from service.codecs import jpeg
from service.codecs.header import exif_orientation
from service.codecs.images import decode, read_header
from service.errors import InvalidImage, Malformed, PayloadTooLarge, ServiceError, UnsupportedMediaType
from tests.pictures import (
    Picture,
    chunk,
    encode,
    exif,
    gallery,
    noise,
    on_white,
    png,
    png_header,
    stored_as,
    textured,
    tiff,
)

LIMIT = 1_000_000
LOSSLESS = ("PNG", "BMP", "TIFF", "WebP", "GIF")
# In production the codec has Pillow's warnings ignored; pytest puts its own filters over that.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601-7, 2.5.1: E'Y = 0.299 R + 0.587 G + 0.114 B."""
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def lossless(pixels: np.ndarray, image_format: str, **options: Any) -> bytes:
    """Encode so that exactly these pixels must come back; a GIF by a palette of its own."""
    if image_format == "WebP":
        options["lossless"] = True
    if image_format != "GIF":
        return encode(pixels, image_format, **options)
    colours, indices = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    assert len(colours) <= 256
    image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8))
    image.putpalette(colours.astype(np.uint8).tobytes())
    return encode(image, image_format, **options)


def few_colours(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return noise(1, 200, 3, rng)[0][rng.integers(0, 200, (height, width))]


# What pixels become


def test_every_lossless_format_and_mode_is_exact(rng: np.random.Generator) -> None:
    for picture in gallery(int(rng.integers(2**32))):
        decoded = decode(picture.data, channels="RGB", max_pixels=LIMIT)
        assert decoded.dtype == np.uint8
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, picture.rgb, err_msg=picture.name)
        header = read_header(picture.data)
        assert (header.format, header.height, header.width) == (picture.format, *picture.rgb.shape[:2]), picture.name


def test_grey_is_bt601_luma_within_one(rng: np.random.Generator) -> None:
    for picture in gallery(int(rng.integers(2**32))):
        grey = decode(picture.data, channels="L", max_pixels=LIMIT)
        assert grey.shape == (*picture.rgb.shape[:2], 1), picture.name
        assert grey.flags.c_contiguous
        # Rounding, and 0.299, 0.587, 0.114 in 16-bit fixed point: 255 · 3 · 2^-17.
        assert np.abs(grey[..., 0] - luma(picture.rgb)).max() <= 0.5 + 0.006, picture.name


@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["444", "422", "420"])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_jpeg_is_what_libjpeg_gives(subsampling: int, progressive: bool, rng: np.random.Generator) -> None:
    pixels = textured(75, 101, int(rng.integers(2**32)))
    data = encode(pixels, "JPEG", quality=88, subsampling=subsampling, progressive=progressive)
    decoded = decode(data, channels="RGB", max_pixels=LIMIT).astype(int)
    # The inverse DCT may differ by one level among SIMD implementations, and colour conversion doubles it.
    assert np.abs(decoded - by_pillow(data)).max() <= 2
    assert np.abs(decoded - pixels).mean() < 8  # and it is the picture


def test_jpeg_of_unusual_subsampling_is_read(rng: np.random.Generator) -> None:
    """TurboJPEG's interface has names for six subsamplings, the format allows any: here Y 2×2, Cb 2×1, Cr 1×1.

    One unit of 16×16 pixels, written bit by bit: four flat blocks of luma, no chroma. ITU-T T.81, tables K.3 to K.5.
    """
    whole = encode(np.full((16, 16, 3), 128, np.uint8), "JPEG", quality=75, subsampling=0)
    at = whole.index(b"\xff\xc0") + 10
    sampled = whole[: at + 1] + b"\x22" + whole[at + 2 : at + 4] + b"\x21" + whole[at + 5 :]
    steps = rng.integers(16, 32, 4)  # differences of category 5, whose code is 110; by quality 75 the quantum is 8
    bits = "".join(f"110{step:05b}1010" for step in steps) + "0000" * 3
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    start = whole.index(b"\xff\xda") + 2 + 12
    data = sampled[:start] + scan + b"\xff\xd9"
    levels = 128 + np.cumsum(steps)  # 8 · DC / 8
    expected = np.kron(levels.reshape(2, 2), np.ones((8, 8), int))
    decoded = decode(data, channels="RGB", max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, np.repeat(expected[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode(data, channels="L", max_pixels=LIMIT)[..., 0], expected)
    with pytest.raises(InvalidImage):
        decode(data[:-3], channels="RGB", max_pixels=LIMIT)


def test_grey_jpeg_is_repeated_or_itself(rng: np.random.Generator) -> None:
    data = encode(textured(40, 60, int(rng.integers(2**32)))[..., :1], "JPEG", quality=90)
    rgb, grey = (decode(data, channels=channels, max_pixels=LIMIT) for channels in ("RGB", "L"))
    np.testing.assert_array_equal(rgb, np.repeat(grey, 3, axis=2))
    assert np.abs(rgb.astype(int) - by_pillow(data)).max() <= 1


def test_jpeg_luma_is_that_of_its_rgb_but_for_clipping(rng: np.random.Generator) -> None:
    data = encode(textured(200, 300, int(rng.integers(2**32))), "JPEG", quality=88)
    grey = decode(data, channels="L", max_pixels=LIMIT)[..., 0]
    rgb = decode(data, channels="RGB", max_pixels=LIMIT)
    unclipped = ((rgb > 0) & (rgb < 255)).all(axis=2)
    assert unclipped.mean() > 0.5
    assert np.abs(grey - luma(rgb))[unclipped].max() <= 1.5  # each of R, G, B is rounded, then luma


def test_rgb_jpeg_gives_luma_too(rng: np.random.Generator) -> None:
    data = encode(textured(40, 60, int(rng.integers(2**32))), "JPEG", quality=95, keep_rgb=True)
    np.testing.assert_allclose(
        decode(data, channels="L", max_pixels=LIMIT)[..., 0],
        luma(decode(data, channels="RGB", max_pixels=LIMIT)),
        atol=0.51,
    )
    assert np.abs(decode(data, channels="RGB", max_pixels=LIMIT).astype(int) - by_pillow(data)).max() <= 1


@pytest.mark.parametrize("channels", ["RGB", "L"])
def test_cmyk_jpeg_is_inverted_as_adobe_has_it(channels: Any, rng: np.random.Generator) -> None:
    inks = np.dstack([textured(48, 64, int(rng.integers(2**32))), textured(48, 64, int(rng.integers(2**32)))[..., :1]])
    data = encode(inks, "JPEG", "CMYK", quality=98, subsampling=0)
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    if channels == "L":
        expected = luma(expected)[..., None]
    decoded = decode(data, channels=channels, max_pixels=LIMIT)
    assert np.abs(decoded - expected).mean() <= 2.5
    with Image.open(io.BytesIO(data)) as image:
        reference = np.asarray(image.convert("RGB").convert(channels)).reshape(decoded.shape)
    assert np.abs(decoded.astype(int) - reference).max() <= 2


def test_ycck_jpeg_is_what_pillow_gives(rng: np.random.Generator) -> None:
    """CMYK and YCCK differ by a byte of the Adobe marker, so that one becomes the other in place."""
    data = encode(noise(32, 32, 4, rng), "JPEG", "CMYK", quality=95, subsampling=0)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    ycck = data[:at] + b"\x02" + data[at + 1 :]
    decoded = decode(ycck, channels="RGB", max_pixels=LIMIT).astype(int)
    assert np.abs(decoded - by_pillow(ycck)).max() <= 2
    assert np.abs(decoded - by_pillow(data)).mean() > 10  # the marker was heeded


@given(value=st.integers(0, 65_535), alpha=st.integers(0, 65_535))
def test_sixteen_bits_round_once_after_compositing(value: int, alpha: int) -> None:
    samples = np.full((1, 1, 4), (value, 0, 65_535, alpha), np.uint16)
    expected = [round((v * alpha + 65_535 * (65_535 - alpha)) / 65_535 / 257) for v in (value, 0, 65_535)]
    assert decode(png(samples), channels="RGB", max_pixels=1)[0, 0].tolist() == expected
    grey = np.full((1, 1, 1), value, np.uint16)
    assert decode(png(grey), channels="L", max_pixels=1)[0, 0, 0] == round(value / 257)


def test_alpha_composition_is_exact_for_every_value_and_alpha() -> None:
    value, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    expected = on_white(value[..., None], alpha[..., None])
    for data in (
        png(np.dstack([value, alpha])),
        png(np.dstack([value, value, value, alpha])),
        encode(np.dstack([value, value, value, alpha]), "WebP", lossless=True, exact=True),
    ):
        np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=LIMIT), np.repeat(expected, 3, axis=2))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_is_spread_over_all_levels(bits: int, rng: np.random.Generator) -> None:
    levels = rng.integers(0, 1 << bits, (9, 16), dtype=np.uint8)
    rows = np.unpackbits(levels[..., None], axis=2)[..., 8 - bits :].reshape(9, -1)
    packed = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    key = int(levels[0, 0])
    expected = np.rint(levels * (255 / ((1 << bits) - 1))).astype(np.uint8)
    for transparency, truth in ((b"", expected), (struct.pack(">H", key), np.where(levels == key, 255, expected))):
        data = png_header(16, 9, bits, 0) + (chunk(b"tRNS", transparency) if transparency else b"")
        data += chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
        np.testing.assert_array_equal(decode(data, channels="L", max_pixels=LIMIT)[..., 0], truth)


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_tiff_is_inverted_at_sixteen_bits(order: str, rng: np.random.Generator) -> None:
    samples = rng.integers(0, 65_536, (7, 9, 1), dtype=np.uint16)
    decoded = decode(tiff(samples, order, {262: (0,)}), channels="L", max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, np.rint((65_535.0 - samples) / 257))


def test_twelve_bits_are_scaled_by_their_own_maximum(rng: np.random.Generator) -> None:
    samples = rng.integers(0, 4096, (7, 10), dtype=np.uint16)
    nibbles = np.stack([samples >> 8, samples >> 4 & 15, samples & 15], axis=-1).reshape(7, -1).astype(np.uint8)
    packed = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).tobytes()
    data = tiff(np.zeros((7, 10, 1), np.uint8), tags={258: (12,), 279: (len(packed),)}, stored=lambda _: packed)
    expected = np.rint(samples * (255 / 4095))
    np.testing.assert_array_equal(decode(data, channels="L", max_pixels=LIMIT)[..., 0], expected)


def test_premultiplied_alpha_is_not_multiplied_again(rng: np.random.Generator) -> None:
    alpha = rng.integers(0, 65_536, (7, 9, 1), dtype=np.uint16)
    colour = np.rint(rng.random((7, 9, 3)) * alpha).astype(np.uint16)
    data = tiff(np.dstack([colour, alpha]), tags={338: (1,)})
    expected = np.rint((colour.astype(np.float64) + 65_535 - alpha) / 257)
    np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=LIMIT), expected)


# Orientation


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


# Sizes


@pytest.mark.parametrize("image_format", LOSSLESS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 16_383), (16_383, 1), (8, 8)])
def test_extreme_shapes_are_exact(image_format: str, height: int, width: int, rng: np.random.Generator) -> None:
    pixels = few_colours(height, width, rng)
    data = lossless(pixels, image_format)
    np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=height * width), pixels)


@pytest.mark.parametrize("shape", [(1, 65_535), (65_535, 1)])
def test_png_of_65535_by_1_is_exact(shape: tuple[int, int], rng: np.random.Generator) -> None:
    pixels = noise(*shape, 3, rng)
    np.testing.assert_array_equal(decode(png(pixels), channels="RGB", max_pixels=65_535), pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 1), (17, 15), (1, 65_500)])
def test_jpeg_of_any_shape_is_read(height: int, width: int, rng: np.random.Generator) -> None:
    data = encode(noise(height, width, 3, rng), "JPEG", quality=90)
    decoded = decode(data, channels="RGB", max_pixels=height * width)
    assert np.abs(decoded.astype(int) - by_pillow(data)).max() <= 2


def test_limit_is_met_exactly(rng: np.random.Generator) -> None:
    for picture in gallery(int(rng.integers(2**32))):
        height, width = picture.rgb.shape[:2]
        assert decode(picture.data, channels="L", max_pixels=height * width).shape == (height, width, 1)
        with pytest.raises(PayloadTooLarge, match=f"{width}x{height}"):
            decode(picture.data, channels="L", max_pixels=height * width - 1)


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


# First picture of many


@pytest.mark.parametrize("image_format", ["GIF", "WebP", "PNG", "TIFF"])
def test_first_of_many_pictures_is_taken_and_no_other_looked_at(
    image_format: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    pictures = [few_colours(20, 30, rng) for _ in range(4)]
    if image_format == "GIF":
        images = [Image.open(io.BytesIO(lossless(pixels, "GIF"))) for pixels in pictures]
    else:
        images = [Image.fromarray(pixels) for pixels in pictures]
    options: dict[str, Any] = {"lossless": True} if image_format == "WebP" else {}
    data = encode(images[0], image_format, save_all=True, append_images=images[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 4  # type: ignore[attr-defined]
        plugin = type(image)
    monkeypatch.setattr(plugin, "seek", lambda *_: pytest.fail("another picture was looked for"))
    np.testing.assert_array_equal(decode(data, channels="RGB", max_pixels=600), pictures[0])


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

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.codecs.images import decode, read_header
from service.errors import InvalidImage, PayloadTooLarge
from tests.pictures import (
    chunk,
    encode,
    gallery,
    lossless,
    noise,
    on_white,
    png,
    png_header,
    textured,
    tiff,
)

LIMIT = 1_000_000
LIMIT = 1_000_000
LOSSLESS = ("PNG", "BMP", "TIFF", "WebP", "GIF")


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601-7, 2.5.1: E'Y = 0.299 R + 0.587 G + 0.114 B."""
    return rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


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


def test_first_of_a_stereo_pair_is_taken(rng: np.random.Generator) -> None:
    left, right = (textured(32, 48, int(rng.integers(2**32))) for _ in range(2))
    pair = encode(Image.fromarray(left), "MPO", save_all=True, append_images=[Image.fromarray(right)], quality=95)
    assert read_header(pair).format == "JPEG"
    decoded = decode(pair, channels="RGB", max_pixels=LIMIT)
    assert np.abs(decoded.astype(int) - left).mean() < np.abs(decoded.astype(int) - right).mean() / 4

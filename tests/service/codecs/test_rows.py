"""Pictures in rows: the same pixels, bit for bit, as decoded at once; the same refusals; and no more memory than rows take."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.codecs import rows as rows_module
from service.codecs.bands import png as png_bands
from service.codecs.header import Channels, upright
from service.codecs.images import decode
from service.codecs.rows import open_rows
from service.errors import InvalidImage, PayloadTooLarge, ServiceError
from tests.pictures import chunk, encode, exif, gallery, noise, png, png_header, stored_as, textured, tiff

LIMIT = 1_000_000


def in_rows(data: bytes, channels: Channels, *, max_pixels: int = LIMIT) -> tuple[np.ndarray, int]:
    """The picture as stored, and in how many bands it came."""
    rows = open_rows(data, channels=channels, max_pixels=max_pixels, max_tiled_pixels=LIMIT)
    bands = list(rows.bands)
    pixels = np.concatenate(bands)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*rows.header.stored_size[::-1], rows.channels)
    return upright(pixels, rows.header.orientation), len(bands)


def assert_equal_in_rows(data: bytes, name: str = "") -> int:
    """Compare with the picture decoded at once. Returns the number of bands."""
    counts = set()
    for channels in ("RGB", "L"):
        pixels, count = in_rows(data, channels)
        np.testing.assert_array_equal(pixels, decode(data, channels=channels, max_pixels=LIMIT), err_msg=name)
        counts.add(count)
    return max(counts)


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Bands of a few rows, so that small pictures have many."""
    monkeypatch.setattr(rows_module, "_BAND_PIXELS", int(rng.integers(1, 400)))
    monkeypatch.setattr(png_bands, "_STEP", int(rng.integers(1, 300)))


# Bit-equality


def test_every_kind_of_the_gallery_is_equal(rng: np.random.Generator) -> None:
    for picture in gallery(int(rng.integers(2**32))):
        assert_equal_in_rows(picture.data, picture.name)


@pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"], ids=["444", "422", "420", "411"])
@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_jpeg_is_equal(subsampling: int | str, progressive: bool, rng: np.random.Generator) -> None:
    for draw in (textured, lambda h, w, _: noise(h, w, 3, rng)):
        pixels = draw(*map(int, rng.integers(1, 200, 2)), int(rng.integers(2**32)))
        quality = int(rng.integers(5, 100))
        data = encode(pixels, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
        count = assert_equal_in_rows(data, f"{pixels.shape} quality {quality}")
        assert count == -(-len(pixels) // 8) or pixels.shape[1] < 26


JPEGS: dict[str, Callable[[np.ndarray], bytes]] = {
    "grey": lambda x: encode(x[..., :1], "JPEG", quality=90),
    "RGB": lambda x: encode(x[..., :3], "JPEG", quality=90, keep_rgb=True),
    "CMYK": lambda x: encode(x, "JPEG", "CMYK", quality=90),
    "restart markers": lambda x: encode(x[..., :3], "JPEG", quality=80, restart_marker_rows=1),
    "metadata": lambda x: encode(x[..., :3], "JPEG", quality=80, exif=exif(6), comment=b"xyz", icc_profile=bytes(500)),
    "padded before its end": lambda x: encode(x[..., :3], "JPEG", quality=80)[:-2] + bytes(4) + b"\xff\xd9",
    "trailing bytes": lambda x: encode(x[..., :3], "JPEG", quality=80) + bytes(100),
}


@pytest.mark.parametrize("make", JPEGS.values(), ids=JPEGS)
def test_jpeg_of_every_coding_is_equal(make: Callable[[np.ndarray], bytes], rng: np.random.Generator) -> None:
    assert assert_equal_in_rows(make(noise(75, 101, 4, rng))) > 1


@pytest.mark.parametrize("transform", [b"\x02", b"\x07", None], ids=["YCCK", "unknown", "no Adobe segment"])
def test_cmyk_jpeg_is_equal_whatever_adobe_says(transform: bytes | None, rng: np.random.Generator) -> None:
    data = encode(noise(75, 101, 4, rng), "JPEG", "CMYK", quality=90)
    at = data.index(b"Adobe") + 11
    assert_equal_in_rows(
        data[: at - 15] + data[at + 1 :] if transform is None else data[:at] + transform + data[at + 1 :]
    )


def filtered_png(samples: np.ndarray, rng: np.random.Generator) -> bytes:
    """A PNG whose rows have filters at random: any bytes are a picture of some sort."""
    plain = png(samples)
    at = plain.index(b"IDAT")
    (length,) = struct.unpack_from(">I", plain, at - 4)
    rows = np.frombuffer(zlib.decompress(plain[at + 4 : at + 4 + length]), np.uint8).reshape(len(samples), -1).copy()
    rows[:, 0] = rng.integers(0, 5, len(rows))
    packed = zlib.compress(rows.tobytes())
    cuts = np.sort(rng.integers(0, len(packed), 3))
    pieces = np.split(np.frombuffer(packed, np.uint8), cuts)
    return plain[: at - 4] + b"".join(chunk(b"IDAT", piece.tobytes()) for piece in pieces) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_of_every_filter_is_equal(channels: int, dtype: Any, rng: np.random.Generator) -> None:
    samples = rng.integers(0, np.iinfo(dtype).max, (60, 37, channels), dtype, endpoint=True)
    assert assert_equal_in_rows(filtered_png(samples, rng)) > 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits_is_equal(bits: int, rng: np.random.Generator) -> None:
    width, height = 301, 90
    rows = rng.integers(0, 256, (height, 1 + -(-width * bits // 8)), np.uint8)
    rows[:, 0] = rng.integers(0, 5, height)
    data = chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    palette = chunk(b"PLTE", rng.bytes(3 << bits)) + chunk(b"tRNS", rng.bytes(1 << bits))
    for kind in (png_header(width, height, bits, 0), png_header(width, height, bits, 3) + palette):
        assert assert_equal_in_rows(kind + data) > 1


def test_interlaced_png_is_decoded_whole_and_equal(rng: np.random.Generator) -> None:
    import pyvips

    pixels = noise(40, 30, 3, rng)
    image = pyvips.Image.new_from_memory(pixels.tobytes(), 30, 40, 3, "uchar").copy(interpretation="srgb")
    data = image.pngsave_buffer(interlace=True)
    assert assert_equal_in_rows(data) == 1
    with pytest.raises(PayloadTooLarge, match="row by row"):
        in_rows(data, "RGB", max_pixels=1199)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "jpeg"])
def test_tiff_in_strips_is_equal(compression: str | None, rng: np.random.Generator) -> None:
    data = encode(noise(90, 47, 3, rng), "TIFF", compression=compression, tiffinfo={278: 16})
    assert assert_equal_in_rows(data) == 6


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"compression": "deflate", "predictor": "horizontal"}], ids=str
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_in_tiles_is_equal(channels: int, options: dict[str, Any], rng: np.random.Generator) -> None:
    import pyvips

    image = pyvips.Image.new_from_memory(noise(61, 47, channels, rng).tobytes(), 47, 61, channels, "uchar")
    image = image.copy(interpretation="b-w" if channels == 1 else "srgb")
    data = image.tiffsave_buffer(tile=True, tile_width=16, tile_height=16, **options)
    assert assert_equal_in_rows(data) > 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_in_one_plain_strip_is_cut(order: str, rng: np.random.Generator) -> None:
    samples = rng.integers(0, 65_536, (50, 40, 3), np.uint16)
    assert assert_equal_in_rows(tiff(samples, order)) > 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WebP"])
def test_every_orientation_is_equal(image_format: str, orientation: int, rng: np.random.Generator) -> None:
    stored = stored_as(noise(24, 40, 3, rng), orientation)
    options: dict[str, Any] = {"exif": exif(orientation)}
    if image_format == "TIFF":
        options = {"tiffinfo": {274: orientation, 278: 4}}
    assert_equal_in_rows(encode(stored, image_format, **options))


# Refusals


def test_damaged_jpeg_is_refused_where_it_is_refused_whole(rng: np.random.Generator) -> None:
    verdicts = set()
    for progressive in (False, True):
        data = encode(textured(80, 90, int(rng.integers(2**32))), "JPEG", quality=80, progressive=progressive)
        for _ in range(30):
            damaged = bytearray(data)
            damaged[int(rng.integers(len(data) // 3, len(data) - 2))] ^= int(rng.integers(1, 256))
            channels = rng.choice(["RGB", "L"])
            try:
                whole: np.ndarray | None = decode(bytes(damaged), channels=channels, max_pixels=LIMIT)
            except ServiceError:
                whole = None
            verdicts.add(whole is None)
            if whole is None:
                with pytest.raises(InvalidImage):
                    in_rows(bytes(damaged), channels)
            else:
                np.testing.assert_array_equal(in_rows(bytes(damaged), channels)[0], whole)
    assert verdicts == {False, True}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "BMP"])
def test_truncated_file_is_invalid(image_format: str, rng: np.random.Generator) -> None:
    data = encode(noise(60, 50, 3, rng), image_format)
    for end in (len(data) * 6 // 10, len(data) - 3):
        cut = data[:end]
        with pytest.raises(InvalidImage):
            in_rows(cut, "RGB")


def test_jpeg_without_its_end_is_invalid_though_all_pixels_are_there() -> None:
    """The last bits of this one (one of some thousands) are decoded before the decoder looks for more."""
    rng = np.random.default_rng(2646872192)
    data = encode(noise(120, 130, 3, rng), "JPEG", quality=90)
    with pytest.raises(InvalidImage, match="truncated"):
        decode(data[:-2], channels="RGB", max_pixels=LIMIT)
    with pytest.raises(InvalidImage, match="truncated"):
        in_rows(data[:-2], "RGB")
    for padded in (data[:-2] + b"\xff\xff\xd9", data[:-2] + bytes(9) + b"\xff\xd9", data + b"behind it"):
        assert_equal_in_rows(padded)


def test_bands_before_the_damage_are_given(rng: np.random.Generator) -> None:
    """A large picture must not be gone over twice: damage shows when it is reached."""
    data = encode(noise(200, 200, 3, rng), "JPEG", quality=80)
    rows = open_rows(data[: len(data) // 2], channels="RGB", max_pixels=LIMIT, max_tiled_pixels=LIMIT)
    first = next(rows.bands)
    np.testing.assert_array_equal(first, decode(data, channels="RGB", max_pixels=LIMIT)[: len(first)])
    with pytest.raises(InvalidImage, match="truncated"):
        list(rows.bands)


def test_png_with_too_little_data_is_invalid(rng: np.random.Generator) -> None:
    short = zlib.compress(bytes(21 * 4))  # of 10 rows of 21 bytes
    data = png_header(20, 10, 8, 0) + chunk(b"IDAT", short) + chunk(b"IEND", b"")
    with pytest.raises(InvalidImage, match="ends before"):
        in_rows(data, "L")


def test_progressive_jpeg_is_bounded_by_its_coefficients(rng: np.random.Generator) -> None:
    """4:2:0: three halves of a sample a pixel, 2 bytes each, in whole units of 16×16; against 6 bytes of max_pixels."""
    data = encode(noise(160, 160, 3, rng), "JPEG", progressive=True, subsampling=2)
    in_rows(data, "RGB", max_pixels=160 * 160 // 2)
    with pytest.raises(PayloadTooLarge, match="76800"):
        in_rows(data, "RGB", max_pixels=160 * 160 // 2 - 1)
    baseline = encode(noise(160, 160, 3, rng), "JPEG", subsampling=2)
    in_rows(baseline, "RGB", max_pixels=1)


def test_limit_of_tiled_pixels_is_met_exactly(rng: np.random.Generator) -> None:
    data = png(noise(30, 40, 3, rng))
    open_rows(data, channels="RGB", max_pixels=40, max_tiled_pixels=1200)
    with pytest.raises(PayloadTooLarge, match="at most 1199 pixels, the image has 40x30"):
        open_rows(data, channels="RGB", max_pixels=40, max_tiled_pixels=1199)


@pytest.mark.parametrize("image_format", ["GIF", "WebP"])
def test_what_cannot_be_had_in_rows_keeps_to_max_pixels(image_format: str, rng: np.random.Generator) -> None:
    data = encode(noise(30, 40, 3, rng), image_format)
    with pytest.raises(PayloadTooLarge, match=f"1199 pixels of a {image_format}"):
        open_rows(data, channels="RGB", max_pixels=1199, max_tiled_pixels=LIMIT)


# Memory

_PEAK = """
import sys
from pathlib import Path
from service.codecs.rows import open_rows
def high_water():
    return 1024 * next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
data = Path(sys.argv[1]).read_bytes()
warm = Path(sys.argv[2]).read_bytes()
def go(data):
    return sum(len(band) for band in open_rows(data, channels="RGB", max_pixels=10**6, max_tiled_pixels=2**31).bands)
go(warm)
Path("/proc/self/clear_refs").write_text("5")
before = high_water()
rows = go(data)
print(rows, high_water() - before)
"""


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_memory_is_that_of_some_rows(image_format: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """108 megapixels, 324 MB decoded: by at most 96 MB more than a picture of 64×64 takes."""
    import pyvips

    height, width = (9000, 12_000)
    grain = noise(512, 512, 3, rng)
    tile = pyvips.Image.new_from_memory(grain.tobytes(), 512, 512, 3, "uchar").copy(interpretation="srgb")
    picture = tile.replicate(24, 18).crop(0, 0, width, height)
    large, small = tmp_path / "large", tmp_path / "small"
    if image_format == "JPEG":
        large.write_bytes(picture.jpegsave_buffer(Q=20))
    else:
        flat = picture.crop(0, 0, width, 1).replicate(1, height)  # equal rows: quick to compress
        large.write_bytes(flat.pngsave_buffer(compression=1, filter="up"))
    small.write_bytes(encode(noise(64, 64, 3, rng), image_format))
    done = subprocess.run([sys.executable, "-c", _PEAK, large, small], capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == height
    assert peak <= 96e6, f"{peak / 1e6:.0f} MB"

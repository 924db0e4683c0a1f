"""Test pictures: every format and mode, each with the pixels it was made from, deterministic from a seed.

Truths are computed in numpy, in float64 where there is arithmetic; nothing of the service is used.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ImageFile.MAXBLOCK = 2**22  # what Pillow gives libjpeg, which cannot wait for more in the middle of progressive noise


@dataclass(frozen=True)
class Picture:
    """An encoded picture and what it must decode to."""

    name: str
    format: str  # as service.codecs names it
    data: bytes
    rgb: Pixels  # (H, W, 3), upright, on white

    def __str__(self) -> str:
        return self.name


def textured(height: int, width: int, seed: int = 0) -> Pixels:
    """Make a photograph-like picture (H, W, 3): noise of falling amplitude at rising frequency, correlated in colour."""
    rng = np.random.default_rng(seed)
    planes = np.zeros((height, width, 3), np.float32)
    grain = 1
    while grain <= 128:
        coarse = (-(-height // grain) + 1, -(-width // grain) + 1)
        luma, tint = rng.normal(size=coarse), rng.normal(size=(*coarse, 3))
        layer = (luma[..., None] + 0.4 * tint).astype(np.float32)
        for channel in range(3):
            plane = Image.fromarray(layer[..., channel]).resize((width, height), Image.Resampling.BILINEAR)
            planes[..., channel] += np.asarray(plane) * (3.0 * grain**0.55)
        grain *= 2
    return np.clip(planes + 128, 0, 255).astype(np.uint8)


def noise(height: int, width: int, channels: int, rng: np.random.Generator) -> Pixels:
    """Make samples (H, W, C) of uniform noise, half of them at 0 and 255, where rounding and clipping go wrong."""
    samples = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    extremes = rng.choice(np.array([0, 255], np.uint8), samples.shape)
    return np.where(rng.random(samples.shape) < 0.5, extremes, samples).astype(np.uint8)


def encode(pixels: Samples | Image.Image, image_format: str, mode: str | None = None, **options: Any) -> bytes:
    """Encode by Pillow. `pixels` is an image, or (H, W) or (H, W, C) for one of the mode that the shape implies."""
    if isinstance(pixels, Image.Image):
        image = pixels
    else:
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        image = Image.fromarray(np.ascontiguousarray(pixels), mode)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP" if image_format == "WebP" else image_format, **options)
    return buffer.getvalue()


def lossless(pixels: Pixels, image_format: str, **options: Any) -> bytes:
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


def exif(orientation: int) -> bytes:
    """Make EXIF data that holds an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def stored_as(upright: Pixels, orientation: int) -> Pixels:
    """Lay upright pixels out as a file of this orientation stores them.

    EXIF 2.32, 4.6.4 A: which side of the picture the file's row 0 and column 0 are; written out by index.
    """
    height, width = upright.shape[:2]
    shape = (height, width) if orientation < 5 else (width, height)
    i, j = np.indices(shape)
    bottom, right = height - 1, width - 1
    rows, columns = {
        1: (i, j),  # row 0 top, column 0 left
        2: (i, right - j),  # top, right
        3: (bottom - i, right - j),  # bottom, right
        4: (bottom - i, j),  # bottom, left
        5: (j, i),  # left, top
        6: (j, right - i),  # right, top
        7: (bottom - j, right - i),  # right, bottom
        8: (bottom - j, i),  # left, bottom
    }[orientation]
    return upright[rows, columns]


def on_white(colour: Samples, alpha: Samples, maximum: int = 255) -> Pixels:
    """Composite (H, W, C) and (H, W, 1) on white in float64, then to 8 bits, rounding once."""
    colour64, alpha64 = colour.astype(np.float64), alpha.astype(np.float64) / maximum
    return np.rint((colour64 * alpha64 + maximum * (1 - alpha64)) * (255 / maximum)).astype(np.uint8)


def rgb_of(samples: Samples) -> Pixels:
    """Convert (H, W, 1…4: grey, grey+alpha, RGB, RGBA) of 8 or 16 bits to what they must be served as (H, W, 3)."""
    maximum = 255 if samples.dtype == np.uint8 else 65_535
    if samples.shape[2] in {2, 4}:
        flat = on_white(samples[..., :-1], samples[..., -1:], maximum)
    else:
        flat = np.rint(samples.astype(np.float64) * (255 / maximum)).astype(np.uint8)
    return np.repeat(flat, 3, axis=2) if flat.shape[2] == 1 else flat


def chunk(kind: bytes, payload: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_header(width: int, height: int, bit_depth: int = 8, color_type: int = 2) -> bytes:
    """Make a PNG's signature and header chunk, and nothing more."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0))


def png(samples: Samples, key: tuple[int, ...] | None = None, extra: bytes = b"") -> bytes:
    """Write a PNG of 8 or 16 bits, (H, W, 1…4), rows unfiltered; Pillow cannot write 16-bit colour.

    Args:
        samples: grey, grey+alpha, RGB or RGBA.
        key: a tRNS chunk's samples that mean transparent.
        extra: chunks to put before the data.
    """
    height, width, channels = samples.shape
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    header = png_header(width, height, 8 * samples.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels])
    return header + extra + transparent + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def tiff(
    samples: Samples,
    order: str = "<",
    tags: dict[int, tuple[int, ...]] | None = None,
    *,
    big: bool = False,
    stored: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Write an uncompressed one-strip TIFF, (H, W, 1, 3 or 4), in either byte order, on request a BigTIFF.

    Args:
        samples: 8 or 16 bits; 4 channels are RGB and straight alpha.
        order: "<" or ">".
        tags: further tags, or others in place of those written; as LONG values.
        big: 64-bit offsets.
        stored: what the strip's bytes become in the file, such as zlib.compress; `tags` has to name it.
    """
    height, width, channels = samples.shape
    strip = stored(samples.astype(samples.dtype.newbyteorder(order)).tobytes())
    entries: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8 * samples.dtype.itemsize,) * channels, 259: (1,),
        262: (1 if channels == 1 else 2,), 273: (0,), 277: (channels,), 278: (height,), 279: (len(strip),), 284: (1,),
        **({338: (2,)} if channels == 4 else {}), **(tags or {}),
    }  # fmt: skip
    pointer, number, inline = ("Q", "Q", 8) if big else ("I", "I", 4)
    start = 16 if big else 8
    size = 4 + struct.calcsize("=" + number) + inline
    directory = struct.pack(order + ("Q" if big else "H"), len(entries))
    outside_at = start + len(directory) + size * len(entries) + inline
    outside = b""
    entries[273] = (outside_at + sum(4 * len(v) for v in entries.values() if 4 * len(v) > inline),)
    for tag, values in sorted(entries.items()):
        payload = struct.pack(f"{order}{len(values)}I", *values)
        directory += struct.pack(order + "HH" + number, tag, 4, len(values))
        if len(payload) > inline:
            directory += struct.pack(order + pointer, outside_at + len(outside))
            outside += payload
        else:
            directory += payload.ljust(inline, b"\0")
    directory += bytes(inline)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, start) if big else (42, start)))
    return mark + head + directory + outside + strip


def bmp_with_alpha(rgba: Pixels) -> bytes:
    """Write (H, W, 4) as a BMP with BITMAPV4HEADER and a mask for alpha, rows from top to bottom."""
    height, width = rgba.shape[:2]
    bitfields = 3
    info = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, bitfields, rgba.nbytes, 2835, 2835, 0, 0)
    masks = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    info = (info + masks).ljust(108, b"\0")
    return struct.pack("<2sIHHI", b"BM", 14 + 108 + rgba.nbytes, 0, 0, 14 + 108) + info + rgba.tobytes()


def gallery(seed: int, height: int = 29, width: int = 43) -> list[Picture]:
    """Make one picture of each lossless format and mode, of noise, with its truth."""
    rng = np.random.default_rng(seed)

    def draw(channels: int) -> Pixels:
        return noise(height, width, channels, rng)

    def deep(channels: int) -> npt.NDArray[np.uint16]:
        return rng.integers(0, 65_536, (height, width, channels), dtype=np.uint16)

    grey, grey_alpha, rgb, rgba, cmyk = draw(1), draw(2), draw(3), draw(4), draw(4)
    bits = rng.integers(0, 2, (height, width), dtype=np.uint8) * np.uint8(255)
    bilevel = Image.fromarray(bits).convert("1")
    black_and_white = np.repeat(bits[..., None], 3, axis=2)
    indices = rng.integers(0, 256, (height, width), dtype=np.uint8)
    colours, opacities = noise(1, 256, 3, rng)[0], noise(1, 256, 1, rng)[0]
    paletted = Image.fromarray(indices)
    paletted.putpalette(colours.tobytes())
    looked_up, transparent = colours[indices], on_white(colours[indices], opacities[indices])
    hole = int(indices[0, 0])
    with_hole = np.where((indices == hole)[..., None], np.uint8(255), looked_up)
    from_cmyk = np.rint((255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255).astype(np.uint8)

    pictures = [
        Picture("png-palette-alpha", "PNG", encode(paletted, "PNG", transparency=opacities.tobytes()), transparent),
        Picture("png-palette-hole", "PNG", encode(paletted, "PNG", transparency=hole), with_hole),
        Picture("gif-hole", "GIF", encode(paletted, "GIF", transparency=hole), with_hole),
        Picture("gif-grey", "GIF", encode(grey, "GIF"), rgb_of(grey)),
        Picture("tiff-cmyk", "TIFF", encode(cmyk, "TIFF", "CMYK"), from_cmyk),
        Picture("tiff-cmyk-lzw", "TIFF", encode(cmyk, "TIFF", "CMYK", compression="tiff_lzw"), from_cmyk),
        Picture("tiff-1-g4", "TIFF", encode(bilevel, "TIFF", compression="group4"), black_and_white),
        Picture("webp-rgb", "WebP", encode(rgb, "WebP", lossless=True), rgb),
        Picture("webp-rgba", "WebP", encode(rgba, "WebP", lossless=True, exact=True), rgb_of(rgba)),
        Picture("bmp-32", "BMP", encode(rgba, "BMP"), rgba[..., :3]),  # BI_RGB: the fourth byte is reserved
        Picture("bmp-alpha", "BMP", bmp_with_alpha(rgba), rgb_of(rgba)),
    ]
    for name in ("PNG", "BMP", "TIFF"):
        lower = name.lower()
        pictures += [
            Picture(f"{lower}-1", name, encode(bilevel, name), black_and_white),
            Picture(f"{lower}-grey", name, encode(grey, name), rgb_of(grey)),
            Picture(f"{lower}-rgb", name, encode(rgb, name), rgb),
            Picture(f"{lower}-palette", name, encode(paletted, name), looked_up),
        ]
    pictures.append(Picture("gif-palette", "GIF", encode(paletted, "GIF"), looked_up))
    for samples in (deep(1), deep(2), deep(3), deep(4), grey_alpha, rgba):
        kind = f"{samples.shape[2]}x{8 * samples.dtype.itemsize}"
        pictures.append(Picture(f"png-{kind}", "PNG", png(samples), rgb_of(samples)))
        if samples.shape[2] != 2:
            for order in "<>":
                data = tiff(samples, order)
                pictures.append(Picture(f"tiff-{kind}-{order}", "TIFF", data, rgb_of(samples)))
                deflated = tiff(samples, order, {259: (8,)}, stored=zlib.compress)
                pictures.append(Picture(f"tiff-{kind}-{order}-deflate", "TIFF", deflated, rgb_of(samples)))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = encode(rgba, "TIFF", compression=compression)
        pictures.append(Picture(f"tiff-rgba-{compression}", "TIFF", data, rgb_of(rgba)))
    big = deep(3)
    pictures.append(Picture("bigtiff", "TIFF", tiff(big, big=True), rgb_of(big)))
    keyed = deep(3)
    keyed[::3] = keyed[0, 0]
    masked = np.where((keyed == keyed[0, 0]).all(axis=2, keepdims=True), np.uint8(255), rgb_of(keyed))
    pictures.append(Picture("png-3x16-key", "PNG", png(keyed, key=tuple(map(int, keyed[0, 0]))), masked))
    dark = np.where(grey == grey[0, 0], np.uint8(255), grey)
    pictures.append(Picture("png-grey-key", "PNG", png(grey, key=(int(grey[0, 0, 0]),)), rgb_of(dark)))
    return pictures

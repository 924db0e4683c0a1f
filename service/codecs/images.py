"""Encoded images to arrays: what may come in, how large, and what colours, alpha and depth become.

JPEG is decoded by libjpeg-turbo (simplejpeg), everything else by Pillow, which gets the pixels' part of a file only;
docs/decoders.md has the measurements behind that. Nothing about HTTP, models or resizing belongs here: pixels are never
resampled. No file and no network is touched. All functions may be called from any number of threads; the decoders
release the interpreter's lock.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from service.codecs import bmp, depth, gif, jpeg, png, tiff, webp
from service.codecs.header import Channels, Format, ImageHeader, Pixels, upright
from service.errors import InvalidImage, Malformed, PayloadTooLarge, UnsupportedMediaType

__all__ = ["ImageHeader", "decode", "read_header"]

# `decode` knows the size from the header and refuses by its own limit; Pillow's is a fixed one for the whole process.
Image.MAX_IMAGE_PIXELS = None
# Whatever Pillow has to say of metadata is of no consequence here; of pixels it raises.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# What Pillow's plugins raise on broken data (their own list in Image.open, and what their load methods add to it).
_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error, zlib.error,
)  # fmt: skip

_HEADERS = {
    "JPEG": jpeg.read_header,
    "PNG": png.read_header,
    "WebP": webp.read_header,
    "GIF": gif.read_header,
    "BMP": bmp.read_header,
    "TIFF": tiff.read_header,
}


def _sniff(data: bytes) -> Format:
    if not data:
        raise Malformed("expected an image, got no bytes")
    if data.startswith(jpeg.SIGNATURE):
        return "JPEG"
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if webp.matches(data):
        return "WebP"
    if data.startswith(gif.SIGNATURES):
        return "GIF"
    if data.startswith(tiff.SIGNATURES):
        return "TIFF"
    if data.startswith(bmp.SIGNATURE):
        return "BMP"
    raise UnsupportedMediaType(f"expected one of {', '.join(_HEADERS)} by content; got none of them")


def read_header(data: bytes) -> ImageHeader:
    """Read format and size without decoding a pixel.

    Args:
        data: the encoded image.

    Raises:
        Malformed (400): no bytes.
        UnsupportedMediaType (415): none of the six formats, judged by content.
        InvalidImage (422): one of them, with a broken header.
    """
    return _HEADERS[_sniff(data)](data)


def decode(data: bytes, *, channels: Channels, max_pixels: int) -> Pixels:
    """Decode an image as it is meant to be displayed: upright, on white, 8 bits a channel.

    Animations and multi-page files give their first picture. Alpha is composited on white; palettes are looked up; 16
    bits become 8 by round(v / 257), after compositing; CMYK becomes RGB by (255 − C)(255 − K) / 255; colour profiles
    are ignored. Grey is ITU-R BT.601 luma (of JPEG: the luma it stores).

    Args:
        data: the encoded image.
        channels: "RGB", or "L" for grey.
        max_pixels: limit on width · height, checked by the header before any pixel is decoded.

    Returns:
        (H, W, 3) for "RGB", (H, W, 1) for "L"; uint8, C-contiguous.

    Raises:
        Malformed (400), UnsupportedMediaType (415): as `read_header`.
        PayloadTooLarge (413): more than max_pixels.
        InvalidImage (422): truncated, corrupt, or of a kind not read (floating point, 32-bit integers, L*a*b*).
    """
    header = read_header(data)
    if header.width * header.height > max_pixels:
        raise PayloadTooLarge(f"expected at most {max_pixels} pixels, the image has {header.width}x{header.height}")
    if header.format == "JPEG":
        stored = jpeg.decode(data, channels)
    elif header.format == "PNG":
        stored = _decode_png(data, header, channels)
    elif header.format == "TIFF":
        stored = _decode_tiff(data, header, channels, max_pixels)
    else:
        with _open(data, header) as image:
            stored = _flat(_loaded(image, header.format), header.format, channels)
    return _turned(stored, header.orientation)


def _turned(stored: Pixels, orientation: int) -> Pixels:
    channels = stored.shape[2]
    # A pixel as one opaque item: NumPy then moves pixels, not bytes, which halves the time of a turned photograph.
    pixels = np.ascontiguousarray(upright(np.ascontiguousarray(stored).view(f"V{channels}"), orientation))  # (H, W, 1)
    return pixels.view(np.uint8).reshape(*pixels.shape[:2], channels)


def _open(data: bytes, header: ImageHeader) -> ImageFile.ImageFile:
    """Have Pillow read the header, and refuse where it finds another size than was checked against the limit."""
    try:
        image = Image.open(io.BytesIO(data), formats=(header.format,))
    except _BROKEN as error:
        raise InvalidImage(f"{header.format}: corrupt, or of a kind that is not read here") from error
    if image.size != header.stored_size:
        raise InvalidImage(f"{header.format}: its headers contradict each other about its size")
    return image


def _loaded(image: ImageFile.ImageFile, image_format: Format, rawmode: str | None = None) -> Image.Image:
    """Decode the pixels, on request with another reading of a pixel's bytes than Pillow would choose."""
    try:
        if rawmode is not None:
            image.tile = [tile._replace(args=_with_rawmode(tile.args, rawmode)) for tile in image.tile]
        image.load()
    except _BROKEN as error:
        raise InvalidImage(f"{image_format}: truncated or corrupt") from error
    return image


def _with_rawmode(args: tuple[Any, ...] | str | None, rawmode: str) -> tuple[Any, ...] | str:
    return (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode


def _rawmode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) else args)


def _flat(image: Image.Image, image_format: Format, channels: Channels) -> Pixels:
    """Composite and convert an 8-bit image of any mode."""
    if image.mode not in {"1", "L", "P", "PA", "LA", "La", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"}:
        raise InvalidImage(f"{image_format}: pixels of kind {image.mode} are not read; expected 1 to 16 bits a channel")
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif image.mode in {"La", "RGBa"}:
        image = image.convert(image.mode.upper())
    if image.mode in {"LA", "RGBA"}:
        ground = Image.new(image.mode[:-1], image.size, "white")
        ground.paste(image.convert(ground.mode), mask=image.getchannel("A"))
        image = ground
    if channels == "L" and image.mode not in {"1", "L", "RGB"}:
        image = image.convert("RGB")
    pixels = np.asarray(image if image.mode == channels else image.convert(channels))
    return pixels if channels == "RGB" else pixels[:, :, None]


def _decode_png(data: bytes, header: ImageHeader, channels: Channels) -> Pixels:
    essence = png.essence(data)
    with _open(essence.data, header) as image:
        rawmode = _rawmode(image)
        if rawmode == "LA;16B":  # four bytes a pixel; Pillow would keep the high ones only
            pairs = np.asarray(_loaded(image, "PNG", "RGBA"))
            return _shallow(pairs.view(">u2"), 65_535, "straight", channels)
        if ";16" in rawmode:
            samples = _sixteen_bits(essence.data, header, image, rawmode)
            pixels = _shallow(samples, 65_535, "straight" if samples.shape[2] == 4 else "none", channels)
        else:
            pixels = _flat(_loaded(image, "PNG"), "PNG", channels)
            samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    if essence.key is not None:
        # Pillow has spread 1, 2 and 4 bits over 0…255; the key is spread likewise.
        spread = 255 // ((1 << essence.bit_depth) - 1) if essence.bit_depth < 8 else 1
        key = np.array(essence.key) * spread
        pixels = np.where(
            (samples.reshape(*pixels.shape[:2], -1) == key).all(axis=2, keepdims=True), np.uint8(255), pixels
        )
    return pixels


def _decode_tiff(data: bytes, header: ImageHeader, channels: Channels, max_pixels: int) -> Pixels:
    essence = tiff.essence(data)
    if essence.tile_pixels > max_pixels:
        raise PayloadTooLarge(f"expected tiles of at most {max_pixels} pixels, the TIFF has {essence.tile_pixels}")
    with _open(essence.data, header) as image:
        if image.mode not in {"I;16", "I;16B"} and essence.bits != 16:
            return _flat(_loaded(image, "TIFF"), "TIFF", channels)
        if essence.planar:
            raise InvalidImage("TIFF: 16 bits with separate colour planes are not read; expected interleaved channels")
        rawmode = _rawmode(image)
        if image.mode not in {"I;16", "I;16B", "RGB", "RGBA", "CMYK"} or ";1" not in rawmode:
            raise InvalidImage(f"TIFF: pixels of kind {image.mode} are not read; expected 1 to 16 bits a channel")
        samples = _sixteen_bits(essence.data, header, image, rawmode.replace("RGBa", "RGBA"))
        maximum = (1 << essence.bits) - 1
        if essence.white_is_zero:
            samples = maximum - np.minimum(samples, maximum)
        if image.mode != "RGBA":
            return _shallow(samples, maximum, "none", channels)
        return _shallow(samples, maximum, "premultiplied" if "RGBa" in rawmode else "straight", channels)


def _sixteen_bits(data: bytes, header: ImageHeader, image: ImageFile.ImageFile, rawmode: str) -> npt.NDArray[np.uint16]:
    """Decode all 16 bits of a channel, (H, W, C).

    Pillow has 16-bit pixels for grey only; of colour it keeps each sample's first byte by the file's byte order. Decoded
    a second time as if the order were the other, it gives the other byte. `image` is open, not loaded.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(_loaded(image, header.format)).astype(np.uint16)[:, :, None]
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}[rawmode[-1]]
    samples = np.asarray(_loaded(image, header.format, rawmode)).astype(np.uint16)
    samples <<= 8
    with _open(data, header) as again:
        samples |= np.asarray(_loaded(again, header.format, rawmode[:-1] + other))
    return samples


def _shallow(samples: npt.NDArray[np.uint16], maximum: int, alpha: depth.Alpha, channels: Channels) -> Pixels:
    pixels = depth.to_eight_bits(samples, maximum, alpha)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    return _flat(Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode), "TIFF", channels)

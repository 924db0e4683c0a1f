"""Right or wrong: what a decoder makes of formats, modes, orientation and damage. Nothing is timed here."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from service.codecs import images
from tests.pictures import encode, exif, gallery, stored_as, textured

Decoder = Callable[[bytes], np.ndarray | None]
_PICTURES = (
    "png-palette-alpha", "png-4x8", "png-2x8", "png-grey-key", "png-1x16", "png-3x16", "png-4x16", "tiff-3x16-<",
    "tiff-4x16->-deflate", "tiff-1-g4", "tiff-cmyk-lzw", "webp-rgba", "gif-hole", "bmp-alpha", "bmp-palette",
)  # fmt: skip


def cases() -> list[tuple[str, bytes, np.ndarray | None]]:
    """Name, data and right pixels; None where the right answer is an error."""
    photo = textured(120, 160, 5)
    whole = encode(photo, "JPEG", quality=88)
    progressive = encode(photo, "JPEG", quality=88, progressive=True)
    middle = len(whole) // 2
    damaged = whole[:middle] + b"\xff\xd5\0\xaa" * 8 + whole[middle + 32 :]
    inks = np.dstack([photo, textured(120, 160, 6)[..., :1]])
    cmyk = encode(inks, "JPEG", "CMYK", quality=98, subsampling=0)
    turned = encode(stored_as(photo, 6), "JPEG", quality=88, exif=exif(6))
    pictures = {picture.name: picture for picture in gallery(7)}
    broken = bytearray(pictures["png-rgb"].data)
    broken[-13] ^= 1  # the checksum of the data
    found = [
        ("JPEG", whole, np.asarray(Image.open(io.BytesIO(whole)))),
        ("JPEG, EXIF turned", turned, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(turned))))),
        ("JPEG, CMYK (Adobe)", cmyk, np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))),
        ("JPEG cut at 60 %", whole[: len(whole) * 6 // 10], None),
        ("JPEG without its last 2 bytes", whole[:-2], None),
        ("JPEG, progressive, cut at 60 %", progressive[: len(progressive) * 6 // 10], None),
        ("JPEG, data damaged inside", damaged, None),
        ("PNG, data checksum wrong", bytes(broken), None),
    ]
    return found + [(name, pictures[name].data, pictures[name].rgb) for name in _PICTURES]


def verdict(decode: Decoder, data: bytes, truth: np.ndarray | None) -> str:
    try:
        got = decode(data)
    except Exception:  # noqa: BLE001 - every library has its own; all mean that it noticed
        return "refused" if truth is None else "not read"
    if got is None:
        return "refused" if truth is None else "not read"
    if truth is None:
        return "**not noticed**"
    got = np.repeat(got[..., None], 3, axis=2) if got.ndim == 2 else got
    if got.shape != truth.shape:
        return (
            f"other shape {'×'.join(map(str, got.shape))}" if got.shape[:2] != truth.shape[:2] else "channels left in"
        )
    if got.dtype != np.uint8:
        return f"{got.dtype}"
    worst = int(np.abs(got.astype(int) - truth).max())
    return "exact" if worst == 0 else f"off by {worst}"


def luma_difference(height: int, width: int) -> str:
    """How far the luma that JPEG stores is from luma computed of RGB."""
    lines = ["| picture | mean | 99.9 % within | largest |", "|---|---|---|---|"]
    rng = np.random.default_rng(0)
    saturated = np.asarray(Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((512, 384)))
    for name, pixels in {"texture, 2 megapixels": textured(height, width), "saturated colours": saturated}.items():
        data = encode(pixels, "JPEG", quality=88, subsampling=2)
        stored = images.decode(data, channels="L", max_pixels=10**9)[..., 0].astype(int)
        computed = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").convert("L")).astype(int)
        apart = np.abs(stored - computed)
        lines.append(f"| {name} | {apart.mean():.3f} | {np.quantile(apart, 0.999):.0f} | {apart.max()} |")
    return "\n".join(lines)

"""Sample pictures for the README and for trying the service out: one test digit at several sizes, in every format."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from export.digits import Digits, Picture, filling, load_split, placed

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WebP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF"}
"""File ending → Pillow's name, for all that the service reads."""

_SIDE = 40
"""Side in pixels of the digit that lies somewhere in a larger picture."""

_QUALITY = 80
"""Of JPEG and WebP."""


def sample(digits: Digits, label: int, width: int, height: int, seed: int = 0) -> Picture:
    """Make one picture (height,width): a digit that fills it, or one of 40 px somewhere in it if it is that much larger.

    Args:
        digits: to draw from.
        label: which digit, 0…9.
        width: of the picture in pixels.
        height: of the picture in pixels.
        seed: draws the digit, its place, the ground and the noise.
    """
    random = np.random.default_rng(seed)
    digit = digits.images[random.choice(np.flatnonzero(digits.labels == label))]
    if min(width, height) < 4 * _SIDE:
        return filling(digit, width, height)
    return placed(digit, width, height, _SIDE, random)


def encode(picture: Picture, ending: str) -> bytes:
    """Encode a picture (H,W) in the format that belongs to a file ending."""
    stream = io.BytesIO()
    options = {"quality": _QUALITY} if ending in {"jpg", "webp"} else {}
    Image.fromarray(picture).save(stream, FORMATS[ending], **options)
    return stream.getvalue()


def write_samples(folder: Path) -> list[Path]:
    """Write the README's sample pictures, digit-<width>x<height>.<ending>; small ones in every format, large ones in lossy ones."""
    digits = load_split().test
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for (width, height), label, endings in (
        ((8, 8), 5, list(FORMATS)),
        ((33, 71), 7, list(FORMATS)),
        ((640, 480), 3, ["jpg", "webp", "gif"]),
        ((4000, 3000), 2, ["webp"]),
    ):
        picture = sample(digits, label, width, height)
        for ending in endings:
            path = folder / f"digit-{width}x{height}.{ending}"
            path.write_bytes(encode(picture, ending))
            written.append(path)
    return written

"""Pictures to send, drawn here so that nothing has to be downloaded: soft ground, edges and grain, as in photographs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photograph(width: int, height: int, seed: int) -> np.ndarray:
    """Draw something that compresses like a photograph. Returns uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    x = np.asarray(coarse, np.float64)  # (H,W,3)
    rows, columns = np.mgrid[0:height, 0:width]
    for _ in range(24):  # discs of any size: edges
        radius = rng.uniform(0.02, 0.2) * width
        inside = np.hypot(rows - rng.uniform(0, height), columns - rng.uniform(0, width)) < radius
        x[inside] = 0.5 * x[inside] + 0.5 * rng.uniform(0, 255, 3)
    x += rng.normal(0, 6, (height, width, 1))  # grain
    return np.clip(x, 0, 255).astype(np.uint8)


def jpeg(width: int = 500, height: int = 375, seed: int = 0) -> bytes:
    """A JPEG of quality 85; 500×375 is ImageNet's usual size. About 40 kB."""
    file = io.BytesIO()
    Image.fromarray(photograph(width, height, seed)).save(file, "JPEG", quality=85)
    return file.getvalue()


def png(width: int = 64, height: int = 64, seed: int = 0) -> bytes:
    """A grey PNG with a bright stroke on a noisy ground, such as the digits are. About 4 kB."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    stroke = np.abs(np.hypot(rows - height / 2, columns - width / 2) - min(width, height) / 4) < 4
    x = rng.uniform(0, 24, (height, width)) + 220 * stroke
    file = io.BytesIO()
    Image.fromarray(x.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()

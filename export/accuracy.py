"""Accuracy by picture size: which sizes, the pictures, and the share that a classifier gets right."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.digits import SIDES, Digits, Picture, filling, negative, placed

Classify = Callable[[Picture], npt.NDArray[np.int64]]
"""From pictures (N,H,W) uint8 to the label of each, (N,)."""


class Size(NamedTuple):
    """Pictures to measure on: width and height in pixels, and whether the digit fills them or lies anywhere in them."""

    width: int
    height: int
    filled: bool

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


FILLED = tuple(Size(side, side, True) for side in (8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 384)) + tuple(
    Size(width, height, True) for width, height in ((12, 40), (40, 12), (96, 48), (48, 96))
)
PLACED = tuple(
    Size(width, height, False) for width, height in [(64, 64), (128, 128), (256, 256), (512, 512), (640, 480)]
)
GOALS = {True: 0.97, False: 0.95}
"""Least accuracy aimed at, where the digit fills the picture and where it does not."""
PIXELS_A_RUN = 300_000
"""Pictures are classified this many pixels at a time; it bounds memory and changes no result."""


def pictures(digits: Digits, size: Size, seed: int) -> Picture:
    """Make a picture (N,H,W) of each digit, bright ink on a dark ground.

    A digit that fills it is scaled bicubically or bilinearly, half and half; one that does not has one of the SIDES that
    fit.
    """
    random = np.random.default_rng([seed, size.width, size.height, size.filled])
    made = []
    for digit in digits.images:
        if size.filled:
            resample = Image.Resampling.BICUBIC if random.random() < 0.5 else Image.Resampling.BILINEAR
            made.append(filling(digit, size.width, size.height, resample=resample))
        else:
            side = int(random.choice([side for side in SIDES if side <= min(size.width, size.height)]))
            made.append(placed(digit, size.width, size.height, side, random))
    return np.stack(made)


def accuracy(classify: Classify, digits: Digits, size: Size, *, seed: int = 0, inverted: bool = False) -> float:
    """Measure the share of digits that are classified right in pictures of one size, 0…1.

    Args:
        classify: the classifier.
        digits: each gives one picture.
        size: of the pictures.
        seed: of places, grounds and noise.
        inverted: measure on the negatives, dark ink on a bright ground.
    """
    count = max(1, PIXELS_A_RUN // (size.width * size.height))
    right = 0
    shown = pictures(digits, size, seed)
    for start in range(0, len(shown), count):
        part = shown[start : start + count]
        labels = classify(negative(part) if inverted else part)
        right += int((labels == digits.labels[start : start + count]).sum())
    return right / len(shown)

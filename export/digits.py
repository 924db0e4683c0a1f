"""Scikit-learn's handwritten digits: the split, and plain pictures of them at any size, shape and place.

1797 digits of 8×8 pixels, bright ink on black. The pictures made here are what accuracy is measured on; what a network
is trained on is drawn in augment.py.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI machine learning repository, 1998.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from graphs.card import Preprocessing

LABELS = tuple("0123456789")
PREPROCESSING = Preprocessing(channels="L", scale=1 / 255, mean=(0.5,), std=(0.5,))
"""Pixels to −1…1: a convolution's zero padding is then mid grey, as far from black ink on white as from its negative."""

TEST_COUNT = 360
VALIDATION_COUNT = 237
SPLIT_SEED = 0
SIDES = (16, 24, 32, 48, 64, 96)
"""Sides in pixels that a placed digit is drawn from."""

Picture = npt.NDArray[np.uint8]


class Digits(NamedTuple):
    """Digits and what they are: images (N,8,8) uint8, 0…255, bright ink on black; labels (N,) int64, 0…9."""

    images: Picture
    labels: npt.NDArray[np.int64]


class Split(NamedTuple):
    """Three disjoint parts of the data set, the same at every call, each with the digits in equal shares.

    Choices (of a head, of a recipe) are made on `validation`; `test` is for the figure that is told.
    """

    train: Digits
    validation: Digits
    test: Digits


def load_split() -> Split:
    """Load the data set's 1797 digits as 1200 to train on, 237 to choose by and 360 to test with."""
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the data set counts ink in 0…16
    labels = bunch.target.astype(np.int64)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_COUNT, random_state=SPLIT_SEED, stratify=labels
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_COUNT, random_state=SPLIT_SEED, stratify=labels[rest]
    )
    return Split(*(Digits(images[part], labels[part]) for part in (train, validation, test)))


def joined(first: Digits, second: Digits) -> Digits:
    """Put two parts together, in order."""
    return Digits(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


def filling(
    digit: Picture, width: int, height: int, *, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Picture:
    """Scale a digit (8,8) to a picture (height,width) that it fills, whatever that does to its proportions.

    Raises:
        ValueError: a side < 1 (Pillow's).
    """
    return np.asarray(Image.fromarray(digit).resize((width, height), resample))


def placed(
    digit: Picture,
    width: int,
    height: int,
    side: int,
    random: np.random.Generator,
    *,
    ground: tuple[float, float] = (0, 38),
    noise: tuple[float, float] = (5, 13),
) -> Picture:
    """Lay a digit (8,8), scaled to side × side, anywhere on a larger, slightly noisy ground.

    Args:
        digit: bright ink on black.
        width: of the picture in pixels.
        height: of the picture in pixels.
        side: of the digit in pixels, 1 … min(width, height).
        random: draws the place, the ground's level and its noise.
        ground: range of the ground's grey level, 0…255; the ink is laid over it and stays at most 255.
        noise: range of the noise's standard deviation, in grey levels; the noise is on the digit too.

    Returns:
        The picture (height,width).

    Raises:
        ValueError: the digit does not fit.
    """
    if not 1 <= side <= min(width, height):
        raise ValueError(f"a digit of {side} px does not fit a picture of {width}×{height}")
    level = random.uniform(*ground)
    top, left = random.integers(0, height - side, endpoint=True), random.integers(0, width - side, endpoint=True)
    canvas = np.full((height, width), level)
    ink = filling(digit, side, side) / 255
    canvas[top : top + side, left : left + side] += (255 - level) * ink
    canvas += random.normal(0, random.uniform(*noise), canvas.shape)
    picture: Picture = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    return picture


def negative(picture: Picture) -> Picture:
    """Turn bright ink on a dark ground into dark ink on a bright one, and back."""
    turned: Picture = np.invert(picture)  # 255 − x
    return turned

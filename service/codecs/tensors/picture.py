"""Arrays to PNG pictures, and two of them side by side, the way people look at pooling. Pictures in: codecs/images."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.codecs.tensors.dtypes import Tensor
from service.errors import InvalidTensor, PayloadTooLarge

Pixels = npt.NDArray[np.uint8]

GAP = 8
"""Pixels of white between two pictures."""


def encode_png(array: Tensor) -> bytes:
    """Encode as PNG (losslessly, of what is 0 … 255).

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGBA; H and W ≥ 1. uint8 as it is; other numbers are
            rounded (half to even) and clipped to 0 … 255, NaN is 0.

    Raises:
        InvalidTensor (422): another shape.
    """
    pixels = _pixels(array)
    buffer = io.BytesIO()
    # Level 1: a photograph is 5 % larger than at level 6, in half the time.
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def side_by_side(before: Tensor, after: Tensor, *, max_pixels: int) -> Pixels:
    """Put two pictures next to each other at the same height, the lower one scaled up by nearest neighbour.

    Args:
        before: as `encode_png` takes it; it comes left.
        after: likewise; it comes right.
        max_pixels: limit on width · height of the result, checked before it is made.

    Returns:
        (max H, W_before + GAP + W_after, C) uint8 with each W scaled as its height was, at least 1, and C the larger
        number of channels of the two, the gap white.

    Raises:
        InvalidTensor (422): a shape that is no picture's.
        PayloadTooLarge (413): more than max_pixels.
    """
    pictures = [_pixels(before), _pixels(after)]
    height = max(len(picture) for picture in pictures)
    widths = [max(1, round(picture.shape[1] * height / len(picture))) for picture in pictures]
    if height * (sum(widths) + GAP) > max_pixels:
        raise PayloadTooLarge(
            f"expected a picture of at most {max_pixels} pixels, side by side they have {sum(widths) + GAP}x{height}"
        )
    channels = max(picture.shape[2] for picture in pictures)
    out = np.full((height, sum(widths) + GAP, channels), 255, np.uint8)
    for picture, width, left in zip(pictures, widths, (0, widths[0] + GAP), strict=True):
        rows, columns = _nearest(picture.shape[0], height), _nearest(picture.shape[1], width)
        # Alpha, where the other one has it and this one has not, stays 255; grey goes to all three colours.
        out[:, left : left + width, : 3 if picture.shape[2] < 3 <= channels else picture.shape[2]] = picture[
            rows[:, None], columns
        ]
    return out


def _nearest(old: int, new: int) -> npt.NDArray[np.intp]:
    """For each of `new` pixels, the one of `old` that its centre falls in."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _pixels(array: Tensor) -> Pixels:
    """Make it (H, W, C) uint8; a view where it is uint8 already."""
    if array.ndim not in {2, 3} or not array.size or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):
        raise InvalidTensor(
            "a picture: expected a shape of (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with H, W ≥ 1, "
            f"got ({', '.join(map(str, array.shape))})"
        )
    if array.dtype != np.uint8:
        numbers = array if array.dtype.kind == "f" else array.astype(np.float64)  # int8 could not be compared with 255
        array = np.nan_to_num(np.clip(np.rint(numbers), 0, 255)).astype(np.uint8)
    return array if array.ndim == 3 else array[:, :, None]

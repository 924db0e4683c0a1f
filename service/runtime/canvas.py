"""Canvases: one array for images of different sizes, each in the top left corner of its place, and what that wastes.

A masked graph gives each image the answer that it has alone, whatever the rest of its place holds, so nothing is cleared and a
buffer is used again and again. Which images share a canvas is grouping's business (grouping.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

_STEPS = 8
"""Sides in an octave: a side is rounded up by 1/8 at most, 6 % on average, and 200 to 600 pixels have 14 sides."""

_KEPT_BYTES = 2**26
"""Of a canvas whose memory is used again; that of a larger one, of a huge picture, goes with it."""

_FINEST = 8
"""Pixels; below it steps would be smaller than what a network looks at."""


def bucket_side(pixels: int) -> int:
    """Round a canvas's side up, so that few sides occur: _STEPS in an octave, and multiples of _FINEST pixels at least.

    Args:
        pixels: >= 1.
    """
    step = max(_FINEST, 1 << max(0, (pixels - 1).bit_length() - 1 - (_STEPS.bit_length() - 1)))
    return -(-pixels // step) * step


def bucket_count(images: int) -> int:
    """Round a number of images up to a power of two.

    Args:
        images: >= 1.
    """
    return 1 << (images - 1).bit_length()


@dataclass(slots=True)
class Tally:
    """What has run since the start; written by one thread, read by any.

    Attributes:
        plain: batches of equal sizes.
        ragged: batches on a canvas.
        pixels_used: of images, in both.
        pixels_wasted: of canvases, where no image lay.
    """

    plain: int = 0
    ragged: int = 0
    pixels_used: int = 0
    pixels_wasted: int = 0


def total(tallies: Iterable[Tally]) -> Tally:
    """Add them up."""
    return Tally(*(sum(counts) for counts in zip(*map(astuple, tallies), strict=True)))


class Easel:
    """The memory of canvases: one buffer, as large as the largest yet. For one thread; a canvas lives until the next is laid."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def blank(self, images: int, height: int, width: int, channels: int) -> np.ndarray:
        """Give an array uint8 (images, height, width, channels) that holds anything."""
        size = images * height * width * channels
        if size > _KEPT_BYTES:
            return np.empty((images, height, width, channels), np.uint8)
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size].reshape(images, height, width, channels)

    def stack(self, images: Sequence[np.ndarray], places: int) -> np.ndarray:
        """Lay images uint8 (H,W,C) of one size together: (places,H,W,C), at least as many. A lone image is a view of itself."""
        if places == 1:
            return images[0][None]
        pixels = self.blank(places, *images[0].shape)
        np.stack(images, out=pixels[: len(images)])
        return pixels

    def lay(self, images: Sequence[np.ndarray], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Lay images of different sizes on a canvas.

        Args:
            images: uint8 (H,W,C), one C; at least one, at most `shape[0]`.
            shape: places, height and width of the canvas; no image is higher or wider.

        Returns:
            pixels, uint8 (places, height, width, C): images at the top left of their places, anything beside them; and
            extents, int64 (places, 4): 0, 0, height, width of each in pixels. A place without an image counts as filled.
        """
        places, height, width = shape
        pixels = self.blank(places, height, width, images[0].shape[2])
        extents = np.zeros((places, 4), np.int64)
        extents[:, 2:] = height, width
        for place, image in enumerate(images):
            h, w = image.shape[:2]
            pixels[place, :h, :w] = image
            extents[place, 2] = h
            extents[place, 3] = w
        return pixels, extents

    def free(self, outputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Copy those outputs of a run that lie in the canvas itself: a graph may hand its input through."""
        return [output.copy() if np.may_share_memory(output, self._buffer) else output for output in outputs]

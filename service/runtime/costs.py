"""What runs cost, as measured: an image by itself, and in batches of the plain and of the masked graph of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from graphs.anysize.alike import Alike

_FAR = 1e12
"""Pixels; to where the last slope goes on."""


@dataclass(frozen=True)
class Curve:
    """Seconds over an image's pixels: straight between what was measured, and on beyond it.

    Attributes:
        pixels: ascending, from 0.
        seconds: at each.
    """

    pixels: np.ndarray  # (m,) float64
    seconds: np.ndarray  # (m,) float64

    @classmethod
    def through(cls, points: Sequence[tuple[int, float]]) -> Self:
        """Draw it through (pixels, seconds), two or more, ascending: noise does not make it fall."""
        pixels = np.array([point[0] for point in points], np.float64)
        seconds = np.maximum.accumulate([point[1] for point in points])
        slopes = np.diff(seconds) / np.diff(pixels)
        # Towards 0 no lower than a third of what was measured last: much of a small run is overhead.
        first = max(seconds[0] - slopes[0] * pixels[0], seconds[0] / 3)
        last = seconds[-1] + slopes[-1] * (_FAR - pixels[-1])
        return cls(np.array([0.0, *pixels, _FAR]), np.array([first, *seconds, last]))

    def at(self, pixels: float | np.ndarray) -> np.ndarray:
        """Seconds for so many pixels; an array for an array."""
        return np.asarray(np.interp(pixels, self.pixels, self.seconds))


@dataclass(frozen=True)
class BatchCost:
    """Seconds of a batch: run_s + images · each.

    Attributes:
        run_s: of any run: calls, weights fetched from memory, kernels launched.
        each: of an image on top of that, over the pixels of its place.
    """

    run_s: float
    each: Curve

    def of(self, images: int, pixels: int) -> float:
        """Seconds of a batch of so many images in places of so many pixels."""
        return self.run_s + images * float(self.each.at(pixels))


@dataclass(frozen=True)
class Costs:
    """All of one model.

    Attributes:
        alone: an image by itself on the plain graph.
        plain: images of one size.
        ragged: images on canvases; None where there is no masked graph, or it never pays.
        ragged_pixels: places of so many pixels pay, larger ones do not.
        switch_s: seconds that a run takes longer where the one before it had another shape: 0 on the CPU; on CUDA
            the plans of all convolutions are made anew (microsoft/onnxruntime#23006).
        alike: what images must have in common to share a canvas; None: nothing.
    """

    alone: Curve
    plain: BatchCost
    ragged: BatchCost | None = None
    ragged_pixels: float = float("inf")
    switch_s: float = 0.0
    alike: Alike | None = None

"""Pairs of neighbours, weighted as the scaling function of Haar's wavelet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphs.operators.regions.binomial import Binomial
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.numbers import checked_plane


def haar(plane: Sequence[int]) -> Grid:
    """Blocks of two cells on each axis, each weighted 1/√2 there: sums are the approximation (LL) of an orthonormal Haar transform.

    On an axis of odd length the last cell is its own neighbour, as with PyWavelets' symmetric extension: ⌈L / 2⌉ regions.

    Args:
        plane: sizes of the pooled axes.

    Raises:
        RegionError: not 1 to 3 axes, or one without cells.
    """
    sizes = checked_plane(plane)
    weights = np.full(2, math.sqrt(0.5))
    return Grid(sizes, tuple(Binomial(cells, -(-cells // 2), 2, 0, weights, "replicate") for cells in sizes))

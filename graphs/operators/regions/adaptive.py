"""Adaptive grids, which fix the number of bins in place of their size, and pyramids of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphs.operators.regions.axis import Progressions
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.joined import Joined
from graphs.operators.regions.numbers import MAX_REGIONS, checked_plane, integer, limited


def adaptive(
    plane: Sequence[int], output_size: int | Sequence[int | None] | None, *, max_regions: int = MAX_REGIONS
) -> Grid:
    """Bin i of n on an axis of L cells is ⌊iL/n⌋ … ⌈(i+1)L/n⌉ − 1, as in PyTorch; bins overlap where n does not divide L.

    Args:
        plane: sizes of the pooled axes.
        output_size: bins on all axes, or on each; None keeps the axis. More bins than cells repeat cells.
        max_regions: at most so many bins.

    Raises:
        RegionError: a number of bins below 1, or too many.
    """
    sizes = checked_plane(plane)
    asked = output_size if isinstance(output_size, Sequence) else [output_size] * len(sizes)
    if len(asked) != len(sizes):
        raise RegionError(f"output_size: expected one number or {len(sizes)}, one per pooled axis, got {len(asked)}")
    output = [
        size if bins is None else integer("output_size", bins, 1) for size, bins in zip(sizes, asked, strict=True)
    ]
    limited(math.prod(output), max_regions)
    return Grid(sizes, tuple(_bins(size, bins) for size, bins in zip(sizes, output, strict=True)))


def pyramid(plane: Sequence[int], levels: Sequence[int], *, max_regions: int = MAX_REGIONS) -> Joined:
    """Spatial pyramid (Lazebnik, Schmid, Ponce 2006; He et al. 2014, arXiv 1406.4729): adaptive grids, one level after the other.

    Args:
        plane: sizes of the pooled axes.
        levels: bins on each axis of each level, so that a level n of a plane of two axes has n² of them.
        max_regions: at most so many bins on all levels together.

    Raises:
        RegionError: no levels, one below 1, or too many bins.
    """
    sizes = checked_plane(plane)
    bins = [integer("levels", level, 1) for level in levels]
    if not bins:
        raise RegionError("levels: expected at least one")
    limited(sum(level ** len(sizes) for level in bins), max_regions)
    return Joined(tuple(adaptive(sizes, level, max_regions=max_regions) for level in bins))


def strips(plane: Sequence[int]) -> Joined:
    """Every row and then every column of a plane of two axes (Hou et al. 2020, arXiv 2003.13328): H + W regions.

    Raises:
        RegionError: the plane has another number of axes.
    """
    sizes = checked_plane(plane)
    if len(sizes) != 2:
        raise RegionError(f"strips: expected a plane of 2 axes, rows and columns, got {len(sizes)}")
    return Joined((adaptive(sizes, (None, 1), max_regions=sizes[0]), adaptive(sizes, (1, None), max_regions=sizes[1])))


def _bins(size: int, bins: int) -> Progressions:
    number = np.arange(bins)
    start = number * size // bins
    return Progressions(size, start, -(-(number + 1) * size // bins) - start)

"""The square regions of R-MAC, at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.numbers import MAX_REGIONS, checked_plane, integer, limited
from graphs.operators.regions.rectangles import Rectangles

OVERLAP = Fraction(2, 5)
"""That neighbouring squares along the longer side should have at the first level."""

STEPS = range(2, 8)
"""Numbers of squares along the longer side among which the one nearest to that overlap is taken."""


def rmac(
    plane: Sequence[int], levels: int = 3, *, include_whole: bool = True, max_regions: int = MAX_REGIONS
) -> Rectangles:
    """Regions of Tolias, Sicre, Jégou 2015 (arXiv 1511.05879), as the authors' code places them, in exact arithmetic.

    With w the shorter side, level l has squares of side ⌊2w / (l + 1)⌋, l of them along the shorter side and l + m − 1 along the
    longer, where m is the number of squares of side w whose overlap is nearest to 0.4 of their area, at the floors of equal steps.

    Args:
        plane: H and W.
        levels: l = 1 … levels, at least 1.
        include_whole: the plane itself as the first region, which the authors' code adds.
        max_regions: at most so many.

    Returns:
        The regions as one axis: the plane, then level by level, row by row.

    Raises:
        RegionError: the plane has not two axes, or there are too many regions.
    """
    sizes = checked_plane(plane)
    if len(sizes) != 2:
        raise RegionError(f"rmac: expected a plane of 2 axes, got {len(sizes)}")
    short, long = min(sizes), max(sizes)
    last = min(integer("levels", levels, 1), 2 * short - 1)  # beyond it the squares have no cells
    more = [0 if size == short else _more(short, long) for size in sizes]
    total = sum(more)
    count = (
        last * (last + 1) * (2 * last + 1) // 6 + total * last * (last + 1) // 2
    )  # Σ l (l + total), as one of `more` is 0
    limited(count + include_whole, max_regions)

    starts, counts = [], []
    if include_whole:
        starts.append(np.zeros((1, 2), np.int64))
        counts.append(np.array([sizes]))
    for level in range(1, last + 1):
        side = 2 * short // (level + 1)
        rows, columns = (_places(size - side, level + extra) for size, extra in zip(sizes, more, strict=True))
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        starts.append(corners)
        counts.append(np.full(corners.shape, side))
    start, extent = np.concatenate(starts), np.concatenate(counts)
    return Rectangles(sizes, (len(start),), start, extent)


def _more(short: int, long: int) -> int:
    """Squares along the longer side less one; of two numbers equally near to the overlap the smaller."""
    return min(STEPS, key=lambda steps: abs(1 - Fraction(long - short, short * (steps - 1)) - OVERLAP)) - 1


def _places(room: int, squares: int) -> np.ndarray:
    return np.arange(squares) * room // max(squares - 1, 1)

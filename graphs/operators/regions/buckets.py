"""Grouping of regions by size, so that a rectangular table of irregular regions is not mostly empty."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Rows = slice | NDArray[np.int64]


def buckets(sizes: NDArray[np.int64], max_cells: int) -> Iterator[tuple[Rows, tuple[int, ...]]]:
    """Regions whose sizes lie between the same powers of two on every axis.

    Args:
        sizes: (R, A), how much a region needs of its table's axes; 0 counts as 1.
        max_cells: a bucket is cut into pieces of at most so many table entries, or of one region.

    Yields:
        The regions, as a slice where they are neighbours, and the lengths of their table's axes, at least 1.
    """
    for regions, widths in _groups(sizes):
        pieces = -(-regions.size // max(max_cells // math.prod(widths), 1))
        for rows in np.array_split(regions, pieces):
            neighbours = rows[-1] - rows[0] + 1 == rows.size
            yield slice(int(rows[0]), int(rows[-1]) + 1) if neighbours else rows, widths


def bucketed_cells(sizes: NDArray[np.int64]) -> int:
    """Table entries of all buckets together."""
    return sum(regions.size * math.prod(widths) for regions, widths in _groups(sizes))


def _groups(sizes: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], tuple[int, ...]]]:
    at_least_one = np.maximum(sizes, 1)
    levels = np.frexp((at_least_one - 1).astype(np.float64))[1].astype(np.int64)  # ⌈log2⌉
    key = np.zeros(len(sizes), np.int64)
    for axis in range(sizes.shape[1]):
        key = key * 64 + levels[:, axis]
    order = np.argsort(key, kind="stable")
    for regions in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if regions.size:
            yield regions, tuple(int(width) for width in at_least_one[regions].max(axis=0))

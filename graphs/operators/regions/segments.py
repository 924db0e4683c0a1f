"""Segments: regions of any form, given by a label for each cell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphs.operators.regions.block import Block, Integers, RegionError, index_dtype
from graphs.operators.regions.buckets import bucketed_cells, buckets
from graphs.operators.regions.numbers import MAX_REGIONS, checked_plane, integer

IGNORED = -1
"""The label of cells that belong to no segment."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segment k is all cells with the label k.

    Attributes:
        plane: sizes of the pooled axes.
        members: the cells, segment by segment, ascending in each.
        offsets: int64 (K + 1,), where in `members` each segment begins.
    """

    plane: tuple[int, ...]
    members: Integers
    offsets: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(K,)."""
        return (self.offsets.size - 1,)

    @property
    def cells(self) -> int:
        """Exactly the table entries of all blocks."""
        return bucketed_cells(self.counts()[:, None])

    def counts(self) -> NDArray[np.int64]:
        """(K,): cells of each segment."""
        return np.diff(self.offsets)

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """Segments of like size together."""
        counts = self.counts()
        for rows, (width,) in buckets(counts[:, None], max_cells):
            count = counts[rows, None]
            member = np.arange(width)
            if count.min() == width:
                yield Block(rows, self.members[self.offsets[:-1][rows, None] + member])
                continue
            present = member < count
            place = (self.offsets[:-1][rows, None] + member) * present
            index = self.members[place] * present if self.members.size else np.zeros(place.shape, np.int32)
            yield Block(rows, index.astype(self.members.dtype), present.astype(np.float64))


def segments(
    plane: Sequence[int], labels: ArrayLike, count: int | None = None, *, max_regions: int = MAX_REGIONS
) -> Segments:
    """One region for each label.

    Args:
        plane: sizes of the pooled axes.
        labels: integers of the plane's shape or flat: 0 … K − 1, or −1 for cells that are left out.
        count: K; None: the largest label + 1. Labels that no cell has are regions without cells.
        max_regions: at most so many.

    Raises:
        RegionError: another shape, no integers, a label below −1 or not below K, no label at all, or too many.
    """
    sizes = checked_plane(plane)
    given = np.asarray(labels)
    if given.shape not in {sizes, (math.prod(sizes),)}:
        raise RegionError(f"labels: expected the plane's shape {list(sizes)}, got {list(given.shape)}")
    if given.dtype.kind not in "iu":
        raise RegionError(f"labels: expected integers, got {given.dtype}")
    lowest, highest = int(given.min()), int(given.max())
    if lowest < IGNORED:
        raise RegionError(f"labels: expected 0 and above, or {IGNORED} for cells to leave out, got {lowest}")
    regions = highest + 1 if count is None else integer("count", count, 1)
    if regions < 1:
        raise RegionError("labels: expected at least one cell with a label of 0 or above, all are left out")
    if highest >= regions:
        raise RegionError(f"labels: expected 0 to {regions - 1} for {regions} regions, got {highest}")
    if regions > max_regions:
        raise RegionError(f"labels: too many, {regions} regions; expected at most {max_regions}")
    flat = given.reshape(-1).astype(np.int64)
    ignored = int(np.count_nonzero(flat == IGNORED))
    members: Integers = np.argsort(flat, kind="stable")[ignored:].astype(index_dtype(flat.size))
    counts = np.bincount(flat[members], minlength=regions)
    return Segments(sizes, members, np.concatenate(([0], np.cumsum(counts))))

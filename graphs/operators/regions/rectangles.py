"""Rectangles of any position and size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.block import Block, index_dtype
from graphs.operators.regions.buckets import bucketed_cells, buckets


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Region r reads the cells start[r] … start[r] + count[r] − 1 of each axis.

    Attributes:
        plane: sizes of the pooled axes, A of them.
        shape: of the answer in place of the plane.
        start: int64 (R, A), in the plane where the region has cells.
        count: int64 (R, A), 0 on any axis makes the region empty.
    """

    plane: tuple[int, ...]
    shape: tuple[int, ...]
    start: NDArray[np.int64]
    count: NDArray[np.int64]

    @property
    def cells(self) -> int:
        """Exactly the table entries of all blocks."""
        return bucketed_cells(self.counts()[:, None])

    def counts(self) -> NDArray[np.int64]:
        """(R,): cells of each region."""
        counts: NDArray[np.int64] = self.count.prod(axis=1)
        return counts

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """Rectangles of like area together."""
        areas = self.counts()
        dtype = index_dtype(math.prod(self.plane))
        for rows, (width,) in buckets(areas[:, None], max_cells):
            start, count, area = self.start[rows], self.count[rows], areas[rows, None]
            rest = np.broadcast_to(np.arange(width), (len(start), width))
            index = np.zeros(rest.shape, np.int64)
            stride = 1
            for axis in reversed(range(len(self.plane))):
                rest, offset = np.divmod(rest, np.maximum(count[:, axis, None], 1))
                index += (start[:, axis, None] + offset) * stride
                stride *= self.plane[axis]
            if area.min() == width:
                yield Block(rows, index.astype(dtype))
            else:
                present = np.arange(width) < area
                yield Block(rows, (index * present).astype(dtype), present.astype(np.float64))

"""What every region system gives: blocks of regions, each a weighted set of cells of the plane.

The plane is the pooled axes of a tensor, flattened row-major to L cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32 | np.int64]


class RegionError(ValueError):
    """Parameters that name no regions of this plane; says the rule and the numbers. Raised before anything is allocated."""


@dataclass(frozen=True, eq=False)
class Block:
    """Regions with about equally many cells, as one rectangular table of r regions by n cells.

    Attributes:
        rows: the numbers of these regions among all regions, row-major in `Regions.shape`: a slice, or int64 (r,).
        index: (r, n), flat positions in the plane, int32 where the plane has fewer than 2³¹ cells, else int64; row-major
            within a region, so the first of a tie is the lowest; any cell of the plane where one is absent. None: one region,
            which is the whole plane in order.
        weight: float64 (r, n), 0 where a cell is absent. None: every cell is present with weight 1.
        divisor: float64 (r,), what an average divides by. None: the sum of the weights.
    """

    rows: slice | NDArray[np.int64]
    index: Integers | None
    weight: NDArray[np.float64] | None = None
    divisor: NDArray[np.float64] | None = None


class Regions(Protocol):
    """A system of regions; every region is in exactly one block, also one without cells (its weights are all 0).

    Attributes:
        plane: sizes of the pooled axes.
        shape: of the answer in place of the plane; as many regions as its product, () for one.
        cells: the sum of r·n over all blocks, or a bound on it, known without building them.
    """

    @property
    def plane(self) -> tuple[int, ...]:
        """Sizes of the pooled axes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer in place of the plane."""

    @property
    def cells(self) -> int:
        """At most this many table entries in all blocks together."""

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """Build the tables one after the other, each of at most `max_cells` entries unless a single region is larger."""

    def counts(self) -> NDArray[np.int64]:
        """(R,): how many cells of weight other than 0 each region has."""


def index_dtype(cells: int) -> type[np.int32 | np.int64]:
    """The dtype of positions in a plane of so many cells."""
    return np.int32 if cells < 2**31 else np.int64


_COUNTED_AT_ONCE = 2**20  # table entries


def weighted_counts(regions: Regions) -> NDArray[np.int64]:
    """Count each region's cells of weight other than 0 by building its tables, all of whose blocks must have weights: (R,)."""
    counts = np.zeros(math.prod(regions.shape), np.int64)
    for block in regions.blocks(_COUNTED_AT_ONCE):
        assert block.weight is not None  # by the contract
        counts[block.rows] = np.count_nonzero(block.weight, axis=1)
    return counts

"""Which table entries read each cell: turns the adjoint of a gather, a scattered sum, into a gather.

So a gradient adds in the same order on every run and needs no atomic additions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.block import Integers, RegionError, index_dtype
from graphs.operators.regions.buckets import Rows, buckets


class Readers(NamedTuple):
    """The readers of some cells of the plane, about equally many for each.

    Attributes:
        cells: the cells, a slice or int64 (c,).
        slots: (c, m), flat positions in the block's table, ascending; r·n where there is none, a position to hold 0.
    """

    cells: Rows
    slots: Integers


def transpose(index: Integers, weight: NDArray[np.float64] | None, cells: int) -> Integers:
    """The inverse of a whole table: as `readers`, for all cells together.

    Fit for windows and other systems in which no cell is read much more often than the others; the table is as wide as the most
    read cell needs.

    Args:
        index: (r, n), a block's.
        weight: (r, n), a block's; entries of weight 0 read nothing.
        cells: L, of the plane.

    Returns:
        (L, m): flat positions in the table, ascending; r·n where there is none.

    Raises:
        RegionError: the inverse would be more than 8 times as large as the table and the plane: take `readers`.
    """
    slots, offsets = _by_cell(index, weight, cells)
    counts = np.diff(offsets)
    width = max(int(counts.max()), 1)
    if cells * width > 8 * (index.size + cells):
        raise RegionError(f"expected cells that are read about equally often; one of {cells} is read {width} times")
    return _table(slots, offsets[:-1], counts, width, index.size)


def readers(index: Integers, weight: NDArray[np.float64] | None, cells: int, max_slots: int) -> Iterator[Readers]:
    """The inverse of a table for any system, in pieces; every cell that is read is in exactly one.

    Args:
        index: (r, n), a block's.
        weight: (r, n), a block's; entries of weight 0 read nothing.
        cells: L, of the plane.
        max_slots: a piece has at most so many, unless a single cell has more.
    """
    slots, offsets = _by_cell(index, weight, cells)
    counts = np.diff(offsets)
    read = np.flatnonzero(counts)
    if not read.size:
        return
    for rows, (width,) in buckets(counts[read, None], max_slots):
        chosen = read[rows]
        first, last = int(chosen[0]), int(chosen[-1])
        where: Rows = slice(first, last + 1) if last - first + 1 == chosen.size else chosen
        yield Readers(where, _table(slots, offsets[chosen], counts[chosen], width, index.size))


def _by_cell(
    index: Integers, weight: NDArray[np.float64] | None, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The slots sorted by the cell they read, and where each cell's begin, (L + 1,)."""
    flat = index.reshape(-1)
    slots = np.arange(flat.size) if weight is None else np.flatnonzero(weight.reshape(-1))
    read = flat[slots].astype(np.int64)
    bits = flat.size.bit_length()
    if (
        bits + int(cells).bit_length() <= 63
    ):  # one sort of both numbers in one word is several times faster than a stable argsort
        key = (read << bits) | slots
        key.sort()
        slots = key & ((1 << bits) - 1)
    else:
        slots = slots[np.argsort(read, kind="stable")]
    return slots, np.concatenate(([0], np.cumsum(np.bincount(read, minlength=cells))))


def _table(
    slots: NDArray[np.int64], first: NDArray[np.int64], counts: NDArray[np.int64], width: int, none: int
) -> Integers:
    member = np.arange(width)
    table = np.full((counts.size, width), none, index_dtype(none + 1))
    present = member < counts[:, None]
    table[present] = slots[(first[:, None] + member)[present]]
    return table

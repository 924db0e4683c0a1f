"""Averages and maxima over a region system in plain NumPy, and the promises that every system keeps."""

from __future__ import annotations

import math

import numpy as np

from graphs.operators.regions.block import Block, Regions


def tables(block: Block, plane: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, weight and divisor of a block, with what it leaves out filled in."""
    index = np.arange(math.prod(plane))[None] if block.index is None else block.index
    weight = np.ones(index.shape) if block.weight is None else block.weight
    return index, weight, weight.sum(axis=1) if block.divisor is None else block.divisor


def pooled(regions: Regions, x: np.ndarray, statistic: str, max_cells: int = 2**20) -> np.ndarray:
    """The statistic (sum, average or maximum) of each region; NaN for the average, -inf for the maximum of an empty one."""
    out = np.full(math.prod(regions.shape), np.nan)
    seen = np.zeros(out.size, np.int64)
    for block in regions.blocks(max_cells):
        index, weight, divisor = tables(block, regions.plane)
        cells = x.reshape(-1)[index]
        if statistic == "maximum":
            out[block.rows] = np.where(weight != 0, cells, -np.inf).max(axis=1)
        else:
            total = (cells * weight).sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[block.rows] = total / divisor if statistic == "average" else total
        seen[block.rows] += 1
    assert (seen == 1).all(), "each region is in exactly one block"
    return out.reshape(regions.shape)


def assert_keeps_promises(regions: Regions, max_cells: int, *, ascending: bool = True, exact: bool = True) -> None:
    """Blocks are no larger than asked, positions lie in the plane and ascend, and the counts are those of the weights."""
    cells = math.prod(regions.plane)
    counts = regions.counts()
    assert counts.shape == (math.prod(regions.shape),)
    entries = 0
    for block in regions.blocks(max_cells):
        index, weight, divisor = tables(block, regions.plane)
        assert index.dtype in {np.dtype(np.int32), np.dtype(np.int64)}
        assert weight.dtype == divisor.dtype == np.float64
        assert index.shape == weight.shape
        assert divisor.shape == index.shape[:1]
        assert index.size <= max(max_cells, index.shape[1])
        assert index.min() >= 0
        assert index.max() < cells
        assert (np.count_nonzero(weight, axis=1) == counts[block.rows]).all()
        for row, weights in zip(index, weight, strict=True):
            assert not ascending or (np.diff(row[weights != 0].astype(np.int64)) > 0).all()
        entries += index.size
    assert entries == regions.cells if exact else entries <= regions.cells

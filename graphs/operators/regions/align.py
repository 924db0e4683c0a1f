"""RoIAlign: boxes that are not rounded; each bin is the mean of bilinear samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphs.operators.regions.block import Block, index_dtype, weighted_counts
from graphs.operators.regions.boxes import checked_boxes, checked_grid
from graphs.operators.regions.buckets import bucketed_cells, buckets
from graphs.operators.regions.numbers import MAX_REGIONS, checked_plane, integer

MOST_SAMPLES = 64
"""Per bin and axis, where the request says how many."""


Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Bins of boxes as weighted cells. The weights are only fit for sums and averages.

    Attributes:
        plane: sizes of the pooled axes, A of them.
        shape: of the answer in place of the plane.
        begin: float64 (N, A), where each box begins, in cells counted from their centres.
        bin: float64 (N, A), a bin's extent in cells.
        samples: int64 (N, A), samples of each bin.
        bins: bins of each box on each axis.
    """

    plane: tuple[int, ...]
    shape: tuple[int, ...]
    begin: Floats
    bin: Floats
    samples: NDArray[np.int64]
    bins: tuple[int, ...]

    @property
    def cells(self) -> int:
        """A bound on the table entries of all blocks: neighbouring samples share cells."""
        return bucketed_cells(self._widths()) * math.prod(self.bins)

    def counts(self) -> NDArray[np.int64]:
        """(R,): cells of weight other than 0."""
        return weighted_counts(self)

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """Bins with like numbers of samples together."""
        bins = math.prod(self.bins)
        for rows, _ in buckets(np.repeat(self._widths(), bins, axis=0), max_cells):
            numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            taps = numbers.size * 2 * int(self.samples[numbers // bins].max())  # before equal cells are merged
            for piece in np.array_split(numbers, max(-(-taps // max(max_cells, 1)), 1)):
                if piece.size:
                    yield self._block(piece)

    def _block(self, numbers: NDArray[np.int64]) -> Block:
        box, rest = np.divmod(numbers, math.prod(self.bins))
        axes = len(self.bins)
        index: NDArray[np.int64] = np.zeros((1,) * (axes + 1), np.int64)
        weight: Floats = np.ones((1,) * (axes + 1))
        for axis, place in enumerate(np.unravel_index(rest, self.bins)):
            position, part = self._taps(axis, box, place.astype(np.int64))
            apart = (numbers.size, *(position.shape[1] if other == axis else 1 for other in range(axes)))
            index = index * self.plane[axis] + position.reshape(apart)
            weight = weight * part.reshape(apart)
        index, weight = index.reshape(numbers.size, -1), weight.reshape(numbers.size, -1)
        divisor = np.maximum(self.samples[box].prod(axis=1), 1).astype(np.float64)
        return Block(numbers, index.astype(index_dtype(math.prod(self.plane))), weight, divisor)

    def _widths(self) -> NDArray[np.int64]:
        """(N, A): cells that a bin reads on each axis, at most: two for each sample, and no cell twice."""
        widths: NDArray[np.int64] = np.minimum(2 * self.samples, np.array(self.plane))
        return widths

    def _taps(self, axis: int, box: NDArray[np.int64], place: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """Cells and weights (r, m) of the regions' samples on one axis, in ascending order, 0 where there are no more."""
        size, samples = self.plane[axis], self.samples[box, axis, None]
        number = np.arange(max(int(samples.max()), 1))
        bin_size = self.bin[box, axis, None]
        at = self.begin[box, axis, None] + (place[:, None] + (number + 0.5) / np.maximum(samples, 1)) * bin_size
        counted = (number < samples) & (at >= -1) & (at <= size)
        at = np.clip(at, 0, size - 1)
        at = np.where(counted, at, np.trunc(at[:, :1]))  # those that do not count widen no table
        low = at.astype(np.int64)
        fraction = at - low
        high = low + (fraction > 0)
        return _merged(
            np.concatenate([low, high], axis=1), np.concatenate([(1 - fraction) * counted, fraction * counted], axis=1)
        )


def aligned(
    plane: Sequence[int],
    boxes: ArrayLike,
    output_size: int | Sequence[int] | None = None,
    *,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    max_regions: int = MAX_REGIONS,
) -> Aligned:
    """RoIAlign (He et al. 2017, arXiv 1703.06870) with the half-pixel shift of its correction (`aligned=True` in torchvision).

    A bin averages a grid of samples, interpolated between the four cells around each. A sample up to one cell outside takes the
    edge's value, one further out counts as 0.

    Args:
        plane: sizes of the pooled axes.
        boxes: as in `checked_boxes`.
        output_size: bins of each box; None: the box is one region, and the answer's shape (N,) and not (N, bins …).
        spatial_scale: cells of the plane for a unit of the coordinates.
        sampling_ratio: samples of a bin on each axis; 0: ⌈box / bins⌉.
        max_regions: at most so many bins in all boxes.

    Raises:
        RegionError: a box, a scale, a number of bins as `checked_boxes` and `checked_grid` refuse them, or a sampling ratio
            below 0 or above `MOST_SAMPLES`.
    """
    sizes = checked_plane(plane)
    ratio = integer("sampling_ratio", sampling_ratio, 0, MOST_SAMPLES)
    begin, end = checked_boxes(sizes, boxes, spatial_scale)
    bins = tuple(checked_grid(sizes, len(begin), output_size, max_regions))
    bin_size = (end - begin) / np.array(bins)
    samples = np.full(begin.shape, ratio) if ratio else np.ceil(bin_size).astype(np.int64)
    answer = (len(begin), *bins) if output_size is not None else (len(begin),)
    return Aligned(sizes, answer, begin - 0.5, bin_size, samples, bins)


def _merged(position: NDArray[np.int64], weight: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Add up the weights of equal positions in each row (r, m), and sort."""
    rows, width = position.shape
    order = np.argsort(position, axis=1, kind="stable")
    position = np.take_along_axis(position, order, axis=1)
    weight = np.take_along_axis(weight, order, axis=1)
    rank = np.zeros(position.shape, np.int64)
    np.cumsum(np.diff(position, axis=1) > 0, axis=1, out=rank[:, 1:])
    slot = rank + np.arange(rows)[:, None] * width
    total = np.zeros(position.shape)
    np.add.at(total.reshape(-1), slot.reshape(-1), weight.reshape(-1))
    merged = np.zeros(position.shape, np.int64)
    np.put_along_axis(merged, rank, position, axis=1)
    most = int(rank.max()) + 1
    return merged[:, :most], total[:, :most]

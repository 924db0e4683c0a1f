"""Rectangular systems: the product of one table per axis, multiplied out block by block."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.axis import Axis, Taps
from graphs.operators.regions.block import Block, Integers, index_dtype

Floats = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)

Profile = Callable[[Sequence[Floats], Sequence[Floats]], Floats]
"""From the distances to the centre on each axis and half the extents there, which broadcast against each other, the weights."""


@dataclass(frozen=True, eq=False)
class Grid:
    """All combinations of the axes' regions, row-major.

    Attributes:
        plane: sizes of the pooled axes.
        axes: one for each.
        divisors: what an average divides by: float64 (o_a,) for each axis, to be multiplied; None: the sum of the weights.
        profile: weights of the cells by their distance from the region's centre; None: 1.
    """

    plane: tuple[int, ...]
    axes: tuple[Axis, ...]
    divisors: tuple[Floats, ...] | None = None
    profile: Profile | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Regions on each axis."""
        return tuple(axis.count.size for axis in self.axes)

    @property
    def cells(self) -> int:
        """Exactly the table entries of all blocks."""
        return math.prod(self.shape) * math.prod(axis.width for axis in self.axes)

    def counts(self) -> NDArray[np.int64]:
        """(R,): cells of each region."""
        return reduce(np.multiply.outer, (axis.count for axis in self.axes)).reshape(-1)

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """Blocks of neighbouring regions, at least half as large as they may be where there is enough to do."""
        first = 0
        for runs in self._runs(max_cells // math.prod(axis.width for axis in self.axes)):
            regions = math.prod(end - begin for begin, end in runs)
            yield self._block(slice(first, first + regions), runs)
            first += regions

    def _runs(self, regions: int) -> Iterator[tuple[tuple[int, int], ...]]:
        """Cut into boxes of at most so many regions: single ones on the first axes, a run on one axis, whole ones after it."""
        shape = self.shape
        cut, inner = len(shape) - 1, 1
        while cut > 0 and inner * shape[cut] <= regions:
            inner *= shape[cut]
            cut -= 1
        pieces = -(-shape[cut] // max(regions // inner, 1))
        bounds = [shape[cut] * piece // pieces for piece in range(pieces + 1)]
        whole = tuple((0, size) for size in shape[cut + 1 :])
        for outer in itertools.product(*(range(size) for size in shape[:cut])):
            for run in itertools.pairwise(bounds):
                yield (*((number, number + 1) for number in outer), run, *whole)

    def _block(self, rows: slice, runs: tuple[tuple[int, int], ...]) -> Block:
        centred = self.profile is not None
        taps = [axis.taps(*run, centred) for axis, run in zip(self.axes, runs, strict=True)]
        regions = rows.stop - rows.start
        divisor = None
        if self.divisors is not None:
            pieces = (values[begin:end] for values, (begin, end) in zip(self.divisors, runs, strict=True))
            divisor = reduce(np.multiply.outer, pieces).reshape(-1)
        weight = self._weight(taps)
        index = self._index(taps)
        if weight is not None:
            weight = np.broadcast_to(weight, index.shape).reshape(regions, -1)
        return Block(rows, index.reshape(regions, -1), weight, divisor)

    def _index(self, taps: list[Taps]) -> Integers:
        strides = [math.prod(self.plane[number + 1 :]) for number in range(len(self.plane))]
        parts = [tap.position * stride for tap, stride in zip(taps, strides, strict=True)]
        if index_dtype(math.prod(self.plane)) is np.int32:
            return reduce(np.add, _apart([part.astype(np.int32) for part in parts]))
        return reduce(np.add, _apart(parts))

    def _weight(self, taps: list[Taps]) -> Floats | None:
        given = [tap.weight for tap in taps]
        weights = [tap.weight for tap in taps if tap.weight is not None]
        weight: Floats | None = None
        if weights:
            ones = [np.ones((1, 1)) if item is None else item.astype(np.float64) for item in given]
            weight = reduce(np.multiply, _apart(ones))
        if self.profile is None:
            return weight
        deltas = [tap.delta for tap in taps if tap.delta is not None]
        halves = [tap.half for tap in taps if tap.half is not None]
        profile = self.profile(_apart(deltas), _apart(halves))
        return profile if weight is None else profile * weight


def _apart(tables: Sequence[NDArray[T]]) -> list[NDArray[T]]:
    """(r_a, m_a) of each axis a, as arrays of rank 2·axes that broadcast to (r_1, r_2, …, m_1, m_2, …)."""
    axes = len(tables)
    apart = []
    for number, table in enumerate(tables):
        shape = [1] * (2 * axes)
        shape[number], shape[axes + number] = table.shape
        apart.append(table.reshape(shape))
    return apart

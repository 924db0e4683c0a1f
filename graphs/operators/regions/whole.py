"""The whole plane as one region: global pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.block import Block
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.numbers import checked_plane


@dataclass(frozen=True, eq=False)
class Whole:
    """One region that is the plane; whether its axes stay with length 1 is decided by whoever shapes the answer.

    Attributes:
        plane: sizes of the pooled axes.
        weighted: the same region with weights for its cells; None: all are 1.
    """

    plane: tuple[int, ...]
    weighted: Grid | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """()."""
        return ()

    @property
    def cells(self) -> int:
        """The plane's."""
        return math.prod(self.plane)

    def counts(self) -> NDArray[np.int64]:
        """(1,): the plane's cells."""
        return np.array([self.cells])

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """One block, its cells in the plane's order and so without a table."""
        if self.weighted is None:
            yield Block(slice(0, 1), None)
            return
        for block in self.weighted.blocks(max_cells):
            yield replace(block, index=None)


def whole(plane: tuple[int, ...]) -> Whole:
    """The plane as one region.

    Raises:
        RegionError: not 1 to 3 axes, or one without cells.
    """
    return Whole(checked_plane(plane))

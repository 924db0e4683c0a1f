"""The whole plane as one region: global pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.block import Block
from graphs.operators.regions.numbers import checked_plane


@dataclass(frozen=True)
class Whole:
    """One region that is the plane; whether its axes stay with length 1 is decided by whoever shapes the answer.

    Attributes:
        plane: sizes of the pooled axes.
    """

    plane: tuple[int, ...]

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
        """One block without a table."""
        yield Block(slice(0, 1), None)


def whole(plane: tuple[int, ...]) -> Whole:
    """The plane as one region.

    Raises:
        RegionError: not 1 to 3 axes, or one without cells.
    """
    return Whole(checked_plane(plane))

"""The whole plane as one region, its cells weighted by their distance from the centre."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.axis import Progressions
from graphs.operators.regions.block import Block
from graphs.operators.regions.grid import Grid, Profile
from graphs.operators.regions.numbers import checked_plane


@dataclass(frozen=True, eq=False)
class Prior:
    """One region: the plane with weights.

    Attributes:
        grid: of one region, the plane.
    """

    grid: Grid

    @property
    def plane(self) -> tuple[int, ...]:
        """Sizes of the pooled axes."""
        return self.grid.plane

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
        """One block, its cells in the plane's order and so without an index."""
        for block in self.grid.blocks(max_cells):
            yield replace(block, index=None)


def prior(plane: tuple[int, ...], profile: Profile) -> Prior:
    """Weigh the cells of the plane by a profile around its centre.

    Raises:
        RegionError: not 1 to 3 axes, or one without cells.
    """
    sizes = checked_plane(plane)
    axes = tuple(Progressions(size, np.array([0]), np.array([size])) for size in sizes)
    return Prior(Grid(sizes, axes, profile=profile))

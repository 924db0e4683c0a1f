"""Several systems of one plane, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.block import Block, Regions


@dataclass(frozen=True, eq=False)
class Joined:
    """The regions of all parts in their order, as one axis.

    Attributes:
        parts: at least one, all of the same plane.
    """

    parts: tuple[Regions, ...]

    @property
    def plane(self) -> tuple[int, ...]:
        """Sizes of the pooled axes."""
        return self.parts[0].plane

    @property
    def shape(self) -> tuple[int, ...]:
        """(the parts' regions together,)."""
        return (sum(math.prod(part.shape) for part in self.parts),)

    @property
    def cells(self) -> int:
        """The table entries of all parts."""
        return sum(part.cells for part in self.parts)

    def counts(self) -> NDArray[np.int64]:
        """(R,): cells of each region."""
        return np.concatenate([part.counts() for part in self.parts])

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """The blocks of each part."""
        first = 0
        for part in self.parts:
            for block in part.blocks(max_cells):
                if isinstance(block.rows, slice):
                    yield replace(block, rows=slice(block.rows.start + first, block.rows.stop + first))
                else:
                    yield replace(block, rows=block.rows + first)
            first += math.prod(part.shape)

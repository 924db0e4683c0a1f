"""Regions of which only some cells count: valid positions of a ragged tensor, soft masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphs.operators.regions.block import Block, RegionError, Regions, weighted_counts


@dataclass(frozen=True, eq=False)
class Masked:
    """The regions of another system, their weights multiplied by the cells'; an average divides by the sum of the products.

    Attributes:
        regions: the system.
        mask: float64 (L,), at least 0.
    """

    regions: Regions
    mask: NDArray[np.float64]

    @property
    def plane(self) -> tuple[int, ...]:
        """Sizes of the pooled axes."""
        return self.regions.plane

    @property
    def shape(self) -> tuple[int, ...]:
        """The system's."""
        return self.regions.shape

    @property
    def cells(self) -> int:
        """The system's."""
        return self.regions.cells

    def counts(self) -> NDArray[np.int64]:
        """(R,): cells of weight other than 0."""
        return weighted_counts(self)

    def blocks(self, max_cells: int) -> Iterator[Block]:
        """The system's blocks with the products as weights."""
        for block in self.regions.blocks(max_cells):
            mask = self.mask[None] if block.index is None else self.mask[block.index]
            weight = mask if block.weight is None else mask * block.weight
            yield replace(block, weight=weight, divisor=None)


def masked(regions: Regions, mask: ArrayLike) -> Masked:
    """Multiply the weights of any system by a mask of the plane.

    Args:
        regions: the system. What it would divide an average by (the padding it counts, an override) gives way to the weights.
        mask: bool, or finite numbers of at least 0, of the plane's shape or flat.

    Raises:
        RegionError: another shape, a negative weight, NaN or infinity.
    """
    given = np.asarray(mask)
    if given.shape not in {regions.plane, (math.prod(regions.plane),)}:
        raise RegionError(f"mask: expected the plane's shape {list(regions.plane)}, got {list(given.shape)}")
    if given.dtype.kind not in "buif":
        raise RegionError(f"mask: expected booleans or numbers, got {given.dtype}")
    weights = given.reshape(-1).astype(np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RegionError(f"mask: expected finite weights of at least 0, got {weights[first]:g} at cell {first}")
    return Masked(regions, weights)

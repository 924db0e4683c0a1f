"""Tables of regions as a graph takes them: positions, and weights in the arithmetic's dtype."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphs.operators.regions.block import Block, Regions
from service.errors import InvalidTensor

TABLE_CELLS = 2**18
"""Cells of the regions run together; times the rows of a chunk they make up a run's memory."""


@dataclass(frozen=True, eq=False)
class Table:
    """A block, ready to be fed.

    Attributes:
        block: as the regions gave it, with its index as int64.
        feeds: index, weight and divisor by their names in the graph.
        regions: r.
        cells: n.
    """

    block: Block
    feeds: dict[str, np.ndarray]
    regions: int
    cells: int

    @property
    def terms(self) -> int:
        """How many values are added in a region at most, each as often as its weight says."""
        weight = self.block.weight
        return self.cells if weight is None else max(1, int(weight.sum(axis=1).max(initial=0)))

    @property
    def empty(self) -> np.ndarray:
        """Which regions have no cells: bool (r,)."""
        weight = self.block.weight
        nothing: np.ndarray = (
            np.zeros(self.regions, bool) if weight is None else np.logical_not((weight > 0).any(axis=1))
        )
        return nothing


def tables(
    regions: Regions,
    arithmetic: str,
    *,
    joint: bool,
    divided: bool,
    together: bool,
    compared: bool,
    most: int = TABLE_CELLS,
) -> Iterator[Table]:
    """Build the tables of all regions, one after the other.

    Args:
        regions: the system.
        arithmetic: dtype.
        joint: weights get an axis for the channels.
        divided: the operator is an average that a divisor matters to.
        together: all regions in one table.
        compared: values are only compared, so that of a weight it counts only whether there is any.
        most: cells of a table, unless one region has more.

    Raises:
        InvalidTensor: 422; fractional weights for integers.
    """
    blocks = regions.blocks(2**62 if together else most)
    for block in [_merged(list(blocks), regions)] if together else blocks:
        feeds: dict[str, np.ndarray] = {}
        if block.index is None:
            count, cells = 1, int(np.prod(regions.plane))
        else:
            count, cells = block.index.shape
            feeds["index"] = block.index.astype(np.int64, copy=False)
        if block.weight is not None:
            weight = (block.weight > 0 if compared else block.weight).astype(arithmetic)
            if weight.dtype.kind == "i" and not compared and (weight != block.weight).any():
                raise InvalidTensor("expected whole weights for a sum of integers; send floats to weigh by fractions")
            feeds["weight"] = weight[None, :, None, :] if joint else weight[None]
        if block.divisor is not None and divided:
            divisor = block.divisor.astype(arithmetic)
            feeds["divisor"] = divisor[None, :, None, None] if joint else divisor[None, :, None]
        yield Table(block, feeds, count, cells)


def _merged(blocks: list[Block], regions: Regions) -> Block:
    """All blocks as one, as wide as the widest, in the order of the regions."""
    if len(blocks) == 1:
        return blocks[0]
    width = max(block.index.shape[1] for block in blocks if block.index is not None)
    total = int(np.prod(regions.shape))
    index, weight = np.zeros((total, width), np.int64), np.zeros((total, width), np.float64)
    for block in blocks:
        assert block.index is not None  # only a lone whole plane has none
        index[block.rows, : block.index.shape[1]] = block.index
        weight[block.rows, : block.index.shape[1]] = 1.0 if block.weight is None else block.weight
    return Block(slice(0, total), index, weight)

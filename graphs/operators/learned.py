"""Regions that were learned: one pooling structure for all images."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.functions import matmul, nonzero, transpose, widen
from graphs.operators.operator import FEED, Operator, Parameters, Reference
from graphs.operators.regions.block import Regions
from graphs.operators.regions.whole import whole
from graphs.operators.request import RegionParameters


class LearnedRegions(Parameters):
    """Parameters of learned regions."""

    masks: Any = Field(
        description="Tensor (K,L): for each of K regions the weight of every cell of the plane, flat row-major.",
        json_schema_extra=FEED,
    )
    normalize: bool = Field(True, description="Divide by the sum of each region's weights; false: only add up.")


def write_learned_regions(cells: Cells, parameters: LearnedRegions) -> Tensor:
    """Σ m_k·w·x / Σ m_k·w for each region k: (B,1,K)."""
    masks = transpose(widen(cells.parameter("masks", "K", "n"), 3), 0, 2, 1)
    sums = matmul(cells.weigh(cells.values), masks)
    if not parameters.normalize:
        return sums
    if cells.weight is None:
        return sums / nonzero(masks.sum(1))
    return sums / nonzero(matmul(cells.weight, masks))


def _whole(plane: tuple[int, ...], request: RegionParameters, parameters: Any) -> Regions:
    return whole(plane)


OPERATORS = (
    Operator(
        name="learned_regions",
        family="learned",
        summary="Weighted means over K given regions of the whole plane, the same for every image and channel.",
        formula=r"y_k=\frac{\sum_i M_{ki}x_i}{\sum_i M_{ki}}",
        keeps="coarse position, as far as the regions tell places apart",
        loses="what the regions do not; planes of another size",
        write=write_learned_regions,
        parameters=LearnedRegions,
        references=(
            Reference(
                "Jia, Huang, Darrell",
                2012,
                "Beyond spatial pyramids: receptive field learning for pooled image features",
            ),
        ),
        mergeable="the sums, and those of the weights",
        learnable=True,
        regions=_whole,
        weights={"masks": ("K", "L")},
        answer=lambda channels, parameters: len(parameters.masks),
    ),
)

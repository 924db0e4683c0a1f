"""A mixture of maximum and average whose share each region decides for itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor, constant, where
from graphs.operators.functions import widen
from graphs.operators.mixtures import LEE, mixture
from graphs.operators.operator import FEED, Operator, Parameters
from graphs.operators.regions.adaptive import adaptive
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.whole import whole
from graphs.operators.regions.windows import windows
from graphs.operators.request import RegionParameters
from graphs.operators.systems import geometry_of
from graphs.operators.windowed import refuse


class Gated(Parameters):
    """Parameters of `gated`."""

    omega: Any = Field(
        description="Tensor (n,): the gate's weight of each of the n cells of a region, row-major; or one number that the average "
        "is multiplied by, for regions of any size.",
        json_schema_extra=FEED,
    )
    bias: float = Field(0.0, description="Added before the sigmoid.", json_schema_extra=FEED)


def write_gated(cells: Cells, parameters: Gated) -> Tensor:
    """σ(ωᵀx + b)·max + (1 − σ(ωᵀx + b))·mean; a lone ω stands for ω/n at every cell."""
    omega = cells.parameter("omega", "n")
    one = constant(cells.values.graph, 1, np.int64)
    unit = where(omega.length(0).equal(one), 1.0 / cells.size(), 1.0)
    x = cells.fill(cells.values, 0.0)
    score = cells.sum(x * widen(omega, 3)) * unit
    return mixture(cells, (score + cells.parameter("bias")).sigmoid())


def _regions(plane: tuple[int, ...], request: RegionParameters, parameters: Gated) -> Regions:
    refuse(request, "gated", "kernel", "stride", "padding", "dilation", "ceil_mode", "output_size")
    system: Regions
    if request.kernel is not None:
        system = windows(geometry_of(plane, request))
    elif request.output_size is not None:
        system = adaptive(plane, request.output_size)
    else:
        system = whole(plane)
    given = int(np.size(parameters.omega))
    counts = system.counts()
    if given != 1 and (counts.min() != given or counts.max() != given):
        found = str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
        raise RegionError(
            f"omega: expected one number, or one for each cell of every region, which have {found}; got {given}"
        )
    return system


OPERATORS = (
    Operator(
        name="gated",
        family="mixtures",
        summary="Maximum and average, mixed by a share that each region's values decide through given weights.",
        formula=r"s \max_i x_i + (1 - s)\frac{1}{n}\sum_i x_i,\quad s = \sigma(\omega^\top x + b)",
        keeps="peaks where the gate opens, the level where it closes",
        loses="which of the two it was",
        write=write_gated,
        parameters=Gated,
        references=(LEE,),
        mergeable="maximum, sum, count and ωᵀx",
        learnable=True,
        regions=_regions,
        weights={"omega": ("n",)},
    ),
)

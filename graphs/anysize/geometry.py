"""How the features lie in the image: stride, receptive field, halo, and the smallest image that has any."""

from __future__ import annotations

import math

import numpy as np

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Cells, Tensor, cells_of
from graphs.anysize.plan import TrunkGeometry
from graphs.anysize.sizes import Level, Side, evaluate


def geometry(analysis: Analysis) -> TrunkGeometry:
    """Measure an analysed graph.

    A cell j of a level with stride s sees the pixels j·s + first … j·s + last, and a tile that owns [top, bottom), both
    multiples of the alignment, needs those for its first cell, top − front …, and for its last, … bottom − s + back.
    """
    seen: dict[Level, Cells] = {}
    for domain in analysis.domain.values():
        if isinstance(domain, Tensor) and domain.axes is not None:
            for cells in (cells for axis in domain.axes for cells in cells_of(axis)):
                seen[cells.level] = cells.meeting(seen.get(cells.level, cells))

    def along(side: Side) -> tuple[int, int, int, int, int, int]:
        every = [cells for cells in seen.values() if cells.level.side == side]
        strides = [cells.level.stride for cells in every]
        alignment = math.lcm(*strides)
        field = max(cells.last - cells.first + 1 for cells in every)
        before = max(cells.front for cells in every)
        after = max(0, *(cells.back - cells.level.stride + 1 for cells in every))
        minimum = max(cells.level.minimum for cells in every)
        return max(strides), alignment, field, -(-before // alignment) * alignment, after, minimum

    height, width = along("height"), along("width")
    min_height, min_width = height[5], width[5]
    while not _enough(analysis, min_height, min_width):  # a top-k needs k positions
        min_height, min_width = min_height + 1, min_width + 1
    return TrunkGeometry(
        stride=(height[0], width[0]),
        alignment=(height[1], width[1]),
        receptive_field=(height[2], width[2]),
        halo=(height[3], width[3], height[4], width[4]),
        min_height=min_height,
        min_width=min_width,
    )


def _enough(analysis: Analysis, height: int, width: int) -> bool:
    for reduction in analysis.reductions:
        if reduction.node.op_type == "TopK":
            source, (axis,) = reduction.sources[0]
            axes, k = analysis.axes(source), analysis.view(reduction.node).array(1).item()
            assert axes is not None
            size = {"batch": np.array([1]), "height": np.array([height]), "width": np.array([width])}
            if evaluate(axes[axis].count, size).item() < k:  # channels may lie along it, too
                return False
    return True

"""How the features lie in the image: stride, receptive field, halo, and the smallest image that has any."""

from __future__ import annotations

import math

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Cells, Tensor, cells_of
from graphs.anysize.plan import TrunkGeometry
from graphs.anysize.sizes import Level, Side


def geometry(analysis: Analysis) -> TrunkGeometry:
    """Measure an analysed graph.

    A cell j of a level with stride s sees the pixels j·s + first … j·s + last, and a tile that owns [top, bottom), both
    multiples of the alignment, needs those of its first cell, top + first …, and of its last, … bottom − s + last.
    """
    seen: dict[Cells, tuple[int, int]] = {}
    for domain in analysis.domain.values():
        if isinstance(domain, Tensor) and domain.axes is not None:
            for cells in (cells for axis in domain.axes for cells in cells_of(axis)):
                first, last = seen.get(cells, (cells.first, cells.last))
                seen[cells] = (min(first, cells.first), max(last, cells.last))

    def along(side: Side) -> tuple[int, int, int, int, int, int]:
        levels = {cells.level: sees for cells, sees in seen.items() if cells.level.side == side}
        strides = [level.stride for level in levels]
        alignment = math.lcm(*strides)
        field = max(last - first + 1 for first, last in levels.values())
        before = max(0, *(-first for first, _ in levels.values()))
        after = max(0, *(last - level.stride + 1 for level, (_, last) in levels.items()))
        minimum = max(level.minimum for level in levels)
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
            sides: list[Level] = [cells.level for cells in cells_of(axes[axis])]
            if math.prod(level.cells(height if level.side == "height" else width) for level in sides) < k:
                return False
    return True

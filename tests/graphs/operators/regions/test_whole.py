"""The whole plane as a region."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.whole import whole
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


@pytest.mark.parametrize("plane", [(5,), (4, 3), (2, 3, 4)])
def test_whole_plane_is_one_region_without_a_table(plane: tuple[int, ...], rng: np.random.Generator) -> None:
    regions = whole(plane)
    x = rng.normal(size=plane)
    (block,) = regions.blocks(1)
    assert block.index is None
    assert pooled(regions, x, "maximum") == x.max()
    assert pooled(regions, x, "average").shape == ()
    assert_keeps_promises(regions, 1)


def test_plane_without_cells_is_refused() -> None:
    with pytest.raises(RegionError, match="expected at least one cell on every axis of the plane, got 0×3"):
        whole((0, 3))

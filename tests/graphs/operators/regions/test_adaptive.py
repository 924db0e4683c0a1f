"""Adaptive grids, pyramids and strips, against PyTorch's adaptive pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs.operators.regions.adaptive import adaptive, pyramid, strips
from graphs.operators.regions.block import RegionError
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_bins_are_pytorchs_also_more_than_cells(axes: int, rng: np.random.Generator) -> None:
    """Maxima bitwise, averages to 1e-12."""
    for _ in range(150):
        plane = tuple(int(value) for value in rng.integers(1, 12, axes))
        output = tuple(int(value) for value in rng.integers(1, 15, axes))
        asked = tuple(None if axes > 1 and rng.integers(4) == 0 else bins for bins in output)
        x = rng.normal(size=plane)
        batch = torch.tensor(x)[None, None]
        regions = adaptive(plane, asked)
        limit = int(rng.integers(1, 300))
        average = getattr(F, f"adaptive_avg_pool{axes}d")(batch, asked)[0, 0].numpy()
        maximum = getattr(F, f"adaptive_max_pool{axes}d")(batch, asked)[0, 0].numpy()
        np.testing.assert_allclose(pooled(regions, x, "average", limit), average, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(pooled(regions, x, "maximum", limit), maximum)
        assert_keeps_promises(regions, limit)


def test_pyramid_is_its_levels_one_after_the_other(rng: np.random.Generator) -> None:
    x = rng.normal(size=(7, 5))
    regions = pyramid((7, 5), [1, 2, 4])
    assert regions.shape == (21,)
    levels = [F.adaptive_max_pool2d(torch.tensor(x)[None, None], level).reshape(-1).numpy() for level in (1, 2, 4)]
    np.testing.assert_array_equal(pooled(regions, x, "maximum", 20), np.concatenate(levels))
    assert_keeps_promises(regions, 20)


def test_strips_are_the_rows_and_then_the_columns(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 9))
    regions = strips((6, 9))
    assert regions.shape == (15,)
    expected = np.concatenate([x.mean(axis=1), x.mean(axis=0)])
    np.testing.assert_allclose(pooled(regions, x, "average", 12), expected, rtol=1e-12, atol=1e-15)
    assert_keeps_promises(regions, 12)


def test_bad_grids_are_refused_with_the_numbers() -> None:
    with pytest.raises(RegionError, match="output_size: expected 1 to 2147483647, got 0"):
        adaptive((4, 4), 0)
    with pytest.raises(RegionError, match="output_size: expected one number or 2, one per pooled axis, got 3"):
        adaptive((4, 4), (1, 2, 3))
    with pytest.raises(RegionError, match=r"expected at most 1000 regions, these parameters make 1000000000000000000"):
        adaptive((4, 4), 10**9, max_regions=1000)
    with pytest.raises(RegionError, match=r"expected at most 67108864 regions, these parameters make about 10\^27"):
        pyramid((4, 4, 4), [1, 10**9])
    with pytest.raises(RegionError, match="levels: expected at least one"):
        pyramid((4, 4), [])
    with pytest.raises(RegionError, match="levels: expected 1 to 2147483647, got 0"):
        pyramid((4, 4), [0, 1])
    with pytest.raises(RegionError, match="strips: expected a plane of 2 axes, rows and columns, got 1"):
        strips((4,))

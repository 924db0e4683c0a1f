"""R-MAC's squares, against a loop written from the paper and its authors' description."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.rmac import rmac
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


def squares(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """(top, left, side): the squares of Tolias, Sicre, Jégou 2015 in float64, nudged where floors meet rounding."""
    short = min(height, width)
    overlaps = [(short**2 - short * (max(height, width) - short) / (steps - 1)) / short**2 for steps in range(2, 8)]
    more = int(np.argmin(np.round(np.abs(np.array(overlaps) - 0.4), 12))) + 1
    found = []
    for level in range(1, levels + 1):
        side = int(2 * short / (level + 1))
        if side == 0:
            continue
        corners = []
        for size in (height, width):
            number = level + (more if size > short else 0)
            step = (size - side) / (number - 1) if number > 1 else 0.0
            corners.append([int(np.floor(place * step + 1e-9)) for place in range(number)])
        found += [(top, left, side) for top in corners[0] for left in corners[1]]
    return found


def test_squares_are_the_papers(rng: np.random.Generator) -> None:
    """Maxima bitwise, for 150 planes."""
    for _ in range(150):
        height, width, levels = int(rng.integers(1, 30)), int(rng.integers(1, 30)), int(rng.integers(1, 6))
        x = rng.normal(size=(height, width))
        regions = rmac((height, width), levels)
        expected = [x.max()] + [
            x[top : top + side, left : left + side].max() for top, left, side in squares(height, width, levels)
        ]
        np.testing.assert_array_equal(pooled(regions, x, "maximum"), expected, err_msg=f"{height}×{width}, {levels}")


def test_a_square_plane_has_the_14_regions_of_three_levels() -> None:
    assert rmac((12, 12)).shape == (15,)
    regions = rmac((12, 12), include_whole=False)
    assert regions.shape == (14,)
    assert regions.counts().tolist() == [144] + [64] * 4 + [36] * 9
    assert_keeps_promises(regions, 100)


def test_bad_planes_and_levels_are_refused() -> None:
    with pytest.raises(RegionError, match="rmac: expected a plane of 2 axes, got 1"):
        rmac((9,))
    with pytest.raises(RegionError, match="levels: expected 1 to 2147483647, got 0"):
        rmac((9, 9), 0)
    with pytest.raises(RegionError, match="expected at most 67108864 regions, these parameters make 2664667001"):
        rmac((1000, 1000), 10**9)
    assert rmac((3, 3), 10**9).shape == (1 + 1 + 4 + 9 + 16 + 25,)

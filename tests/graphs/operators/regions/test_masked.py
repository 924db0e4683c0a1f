"""Masks over every kind of system."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.operators.regions.adaptive import pyramid
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.boxes import boxes
from graphs.operators.regions.masked import masked
from graphs.operators.regions.segments import segments
from graphs.operators.regions.whole import whole
from graphs.operators.regions.windows import window_geometry, windows
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled

PLANE = (6, 5)

SYSTEMS: dict[str, Regions] = {
    "whole": whole(PLANE),
    "windows": windows(window_geometry(PLANE, 3, 2, 1), count_include_pad=True),
    "pyramid": pyramid(PLANE, [1, 2]),
    "boxes": boxes(PLANE, [[0, 0, 2, 2], [1, 1, 4, 5]], 2),
    "segments": segments(PLANE, np.arange(30) % 7),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("soft", [False, True])
def test_masked_average_is_the_weighted_one(name: str, soft: bool, rng: np.random.Generator) -> None:
    """Σ m·x / Σ m of each region: the mask itself pooled is the denominator."""
    mask = rng.random(PLANE) * (rng.random(PLANE) < 0.7) if soft else rng.random(PLANE) < 0.7
    x = rng.normal(size=PLANE)
    regions, plain = masked(SYSTEMS[name], mask), SYSTEMS[name]
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = pooled(plain, x * mask, "sum") / pooled(plain, mask.astype(np.float64), "sum")
    np.testing.assert_allclose(pooled(regions, x, "average", 7), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(
        pooled(regions, x, "maximum", 7), pooled(plain, np.where(mask != 0, x, -np.inf), "maximum")
    )
    assert_keeps_promises(regions, 7)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (np.ones((5, 6)), "mask: expected the plane's shape [6, 5], got [5, 6]"),
        (np.array(["a"] * 30), "mask: expected booleans or numbers, got <U1"),
        (np.full(30, -0.5), "mask: expected finite weights of at least 0, got -0.5 at cell 0"),
        (np.append(np.ones(29), np.nan), "mask: expected finite weights of at least 0, got nan at cell 29"),
    ],
)
def test_bad_masks_are_refused(mask: np.ndarray, says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        masked(SYSTEMS["whole"], mask)
    assert says in str(refusal.value)

"""Centre-weighted windows, against loops over their taps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from graphs.operators.regions.adaptive import pyramid
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.centred import centred, gaussian, inverse_distance, raised_cosine
from graphs.operators.regions.grid import Profile
from graphs.operators.regions.windows import WindowGeometry, window_geometry, windows
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled

Weight = Callable[[list[float], list[float]], float]

PROFILES: dict[str, tuple[Profile, Weight]] = {
    "gaussian": (gaussian(1.3), lambda d, h: math.exp(-sum(v**2 for v in d) / (2 * 1.3**2))),
    "gaussian by extent": (
        gaussian(),
        lambda d, h: math.exp(-sum((v / (e / 2)) ** 2 for v, e in zip(d, h, strict=True)) / 2),
    ),
    "inverse distance": (inverse_distance(), lambda d, h: 1 / (1 + math.hypot(*d))),
    "raised cosine": (
        raised_cosine(),
        lambda d, h: math.prod((1 + math.cos(math.pi * v / e)) / 2 for v, e in zip(d, h, strict=True)),
    ),
}


def averages(geometry: WindowGeometry, x: np.ndarray, weight: Weight) -> np.ndarray:
    """Σ w·x / Σ w over the taps inside the plane, window by window."""
    out = np.full(geometry.output, np.nan)
    axes = range(len(geometry.plane))
    half = [geometry.dilation[axis] * geometry.kernel[axis] / 2 for axis in axes]
    for place in np.ndindex(*geometry.output):
        total = weights = 0.0
        for tap in np.ndindex(*geometry.kernel):
            at = [place[a] * geometry.stride[a] - geometry.pads[a][0] + geometry.dilation[a] * tap[a] for a in axes]
            if all(0 <= at[a] < geometry.plane[a] for a in axes):
                value = weight([geometry.dilation[a] * (tap[a] - (geometry.kernel[a] - 1) / 2) for a in axes], half)
                total += value * float(x[tuple(at)])
                weights += value
        out[place] = total / weights if weights else np.nan
    return out


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_weights_fall_from_the_windows_centre(name: str, axes: int, rng: np.random.Generator) -> None:
    """Absolute error ≤ 1e-12, windows cut by the edge included."""
    profile, weight = PROFILES[name]
    for _ in range(15):
        plane = tuple(int(value) for value in rng.integers(3, 7, axes))
        geometry = window_geometry(plane, 3, int(rng.integers(1, 3)), "same", dilation=int(rng.integers(1, 3)))
        x = rng.normal(size=plane)
        regions = centred(windows(geometry, count_include_pad=True), profile)
        np.testing.assert_allclose(pooled(regions, x, "average", 30), averages(geometry, x, weight), rtol=0, atol=1e-12)
        assert_keeps_promises(regions, 30)


def test_spoc_prior_is_a_gaussian_over_the_whole_plane(rng: np.random.Generator) -> None:
    """Babenko, Lempitsky 2015: α = exp(−((y − H/2)² + (x − W/2)²) / 2σ²), σ = min(H, W) / 6, summed and not normalised."""
    height, width = 8, 11
    x = rng.normal(size=(height, width))
    regions = centred(windows(window_geometry((height, width), (height, width))), gaussian(height / 6))
    y, z = np.mgrid[:height, :width]
    prior = np.exp(-((y - (height - 1) / 2) ** 2 + (z - (width - 1) / 2) ** 2) / (2 * (height / 6) ** 2))
    np.testing.assert_allclose(pooled(regions, x, "sum").item(), (prior * x).sum(), rtol=0, atol=1e-12)


def test_pyramids_are_weighted_bin_by_bin() -> None:
    regions = centred(pyramid((9, 9), [1, 3]), gaussian(1e-3))
    assert pooled(regions, np.arange(81.0), "average").tolist() == [
        40,
        *(9 * y + x for y in (1, 4, 7) for x in (1, 4, 7)),
    ]


def test_narrow_gaussians_never_lose_all_weights(rng: np.random.Generator) -> None:
    """The last window's centre lies outside the plane and σ is tiny: the nearest cell is left."""
    x = rng.normal(size=13)
    regions = centred(windows(window_geometry((13,), 10, 11, ceil_mode=True)), gaussian(1e-200))
    assert pooled(regions, x, "average").tolist() == [(x[4] + x[5]) / 2, x[12]]


def test_bad_sigmas_are_refused() -> None:
    for sigma in (0.0, -1.0, math.nan, math.inf, [1.0, 0.0]):
        with pytest.raises(RegionError, match="sigma: expected finite and above 0"):
            gaussian(sigma)

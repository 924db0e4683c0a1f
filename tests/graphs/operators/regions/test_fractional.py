"""Fractional pooling, against PyTorch's and the paper's rules for disjoint regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.fractional import fractional
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


@pytest.mark.parametrize("axes", [2, 3])
def test_windows_are_pytorchs_for_the_same_sample(axes: int, rng: np.random.Generator) -> None:
    """Bitwise in float64. PyTorch's first sample drives the last axis in 2-D (W, H) and the first in 3-D (T, H, W), where
    it also refuses o + k − 1 = L."""
    pool = F.fractional_max_pool2d if axes == 2 else F.fractional_max_pool3d
    for _ in range(200):
        plane = tuple(int(value) for value in rng.integers(2, 14, axes))
        kernel = tuple(int(rng.integers(1, min(4, size - 1) + 1)) for size in plane)
        output = tuple(int(rng.integers(1, size - k + 4 - axes)) for size, k in zip(plane, kernel, strict=True))
        u = rng.random(axes)
        samples = torch.tensor(u[::-1].copy() if axes == 2 else u)[None, None]
        x = rng.normal(size=plane)
        expected = pool(torch.tensor(x)[None, None], kernel, output_size=output, _random_samples=samples)[0, 0].numpy()
        regions = fractional(plane, kernel, output_size=output, samples=u)
        np.testing.assert_array_equal(
            pooled(regions, x, "maximum", 40), expected, err_msg=f"{plane} {kernel} {output} {u}"
        )
        assert_keeps_promises(regions, 40)


def test_disjoint_regions_part_the_plane_into_steps_of_two_lengths(rng: np.random.Generator) -> None:
    """Graham 2014: for a ratio between 1 and 2 every region has one or two cells; together they are the plane, once."""
    for _ in range(100):
        size = int(rng.integers(2, 40))
        output = int(rng.integers(-(-size // 2), size + 1))
        regions = fractional((size,), None, output_size=output, seed=int(rng.integers(2**31)))
        assert regions.counts().sum() == size
        assert regions.counts().min() >= 1
        assert set(regions.counts()[:-1].tolist()) <= {1, 2}
        x = rng.normal(size=size)
        np.testing.assert_allclose(pooled(regions, x, "sum").sum(), x.sum(), rtol=1e-9, atol=1e-12)
        assert_keeps_promises(regions, 7)


def test_ratio_gives_the_floor_of_the_size_and_a_seed_repeats() -> None:
    first, again, other = (fractional((30, 23), 2, output_ratio=(0.5, 0.7), seed=seed) for seed in (1, 1, 2))
    assert first.shape == (15, 16)
    x = np.arange(690.0)
    np.testing.assert_array_equal(pooled(first, x, "sum"), pooled(again, x, "sum"))
    assert (pooled(first, x, "sum") != pooled(other, x, "sum")).any()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "expected one of output_size and output_ratio"),
        ({"output_size": 2, "output_ratio": 0.5}, "expected one of output_size and output_ratio"),
        ({"output_size": 4}, "output_size + kernel − 1 to be at most the plane's 4, got 4 + 2 − 1"),
        ({"output_size": 10**9}, "got 1000000000 + 2 − 1"),
        ({"output_ratio": 1.0}, "output_ratio: expected one number above 0 and below 1, or 2, one per pooled axis"),
        ({"output_ratio": float("nan")}, "output_ratio: expected one number above 0 and below 1"),
        ({"output_ratio": 0.1}, "output_ratio: leaves nothing of a plane of 4×4 cells"),
        ({"output_size": 2, "samples": [0.5]}, "samples: expected 2 numbers from 0 to below 1, one per pooled axis"),
        ({"output_size": 2, "samples": [0.5, 1.0]}, "samples: expected 2 numbers from 0 to below 1"),
        ({"output_size": 2, "seed": -1}, "seed: expected 0 to 2147483647, got -1"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        fractional((4, 4), 2, **given)  # type: ignore[arg-type]
    assert says in str(refusal.value)

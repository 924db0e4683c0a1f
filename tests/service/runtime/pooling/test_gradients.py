"""Gradients: every operator that has one, over every kind of regions, against the slope of its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs.operators.catalogue import CATALOGUE
from service.errors import InvalidTensor
from tests.service.runtime.pooling.conftest import Pool

PLAIN = sorted(name for name, op in CATALOGUE.items() if op.differentiable and not op.weights and op.labels is None)
"""Operators that have a gradient and need nothing beside the tensor."""
OWN: dict[str, dict[str, Any]] = {"fractional_max": {"output_size": 3}}
"""What operators need that have regions of their own."""
REGIONS: dict[str, dict[str, Any]] = {
    "windows": {"kernel": 2, "stride": 2},
    "overlapping windows": {"kernel": 3, "stride": 2, "padding": 1},
    "whole plane": {},
    "adaptive": {"output_size": 3},
    "pyramid": {"levels": [1, 2]},
    "labels": {"segments": 3},
}


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (op, name)
        for op in PLAIN
        for name in REGIONS
        if name == "whole plane" or not (CATALOGUE[op].regions is not None or CATALOGUE[op].together)
    ],
)
def test_every_gradient_is_the_slope(pool: Pool, op: str, name: str, rng: np.random.Generator) -> None:
    """Along a random direction, in float64: (f(x + h·d) − f(x − h·d)) / 2h is ⟨gradient, d⟩."""
    operator = CATALOGUE[op]
    regions, arrays = REGIONS[name], {}
    if operator.regions is not None or operator.together:
        regions = OWN.get(op, {})  # the operator has regions of its own
    if "segments" in regions:
        arrays["labels"] = rng.integers(0, 3, (6, 6))
    # No two so near that the step changes their order, where an order's slope has a kink.
    x = (rng.permutation(2 * 4 * 6 * 6) + rng.random() / 2).reshape(2, 4, 6, 6) / 288 + 0.5
    y = pool(x, op, arrays=arrays, **regions).tensor
    seed, direction, step = rng.standard_normal(y.shape), rng.standard_normal(x.shape), 1e-6
    gradient = pool(x, op, "gradient", arrays | {"grad_output": seed}, **regions).tensor
    assert gradient.shape == x.shape
    up, down = (pool(x + sign * step * direction, op, arrays=arrays, **regions).tensor for sign in (1, -1))
    slope = float(((up - down) * seed).sum() / (2 * step))
    size = float(np.abs(gradient * direction).sum() + np.abs(seed).max() * np.abs(y).max())
    assert abs(slope - float((gradient * direction).sum())) < 1e-4 * size


def test_grad_output_of_another_shape_is_refused(pool: Pool) -> None:
    with pytest.raises(InvalidTensor, match=r"grad_output: expected the answer's shape \[2, 2\], got \[3\]"):
        pool(np.zeros((4, 4), np.float32), "avg", "gradient", {"grad_output": np.zeros(3, np.float32)}, kernel=2)


def test_integers_have_no_gradient(pool: Pool) -> None:
    with pytest.raises(InvalidTensor, match="floats"):
        pool(np.zeros((4, 4), np.int32), "avg", "gradient", kernel=2)

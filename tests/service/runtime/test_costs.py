"""Costs: curves through what was measured."""

from __future__ import annotations

import numpy as np

from service.runtime.costs import BatchCost, Curve


def test_curve_goes_through_its_points_and_straight_on(rng: np.random.Generator) -> None:
    """Relative error ≤ 1e-12 against the line that the points were taken from."""
    a, b = rng.uniform(1e-4, 1e-2), rng.uniform(1e-9, 1e-6)
    curve = Curve.through([(side**2, a + b * side**2) for side in (16, 32, 64, 128)])
    for pixels in (0, 1, 100, 256, 5000, 16384, 1e6, 5e7):
        assert abs(float(curve.at(pixels)) / (a + b * pixels) - 1) <= 1e-9


def test_noise_does_not_make_a_larger_image_cheaper() -> None:
    curve = Curve.through([(256, 3e-3), (1024, 2e-3), (4096, 5e-3), (16384, 4e-3)])
    seconds = curve.at(np.geomspace(1, 1e8, 200))
    assert (np.diff(seconds) >= 0).all()
    assert seconds[0] > 0


def test_steep_curve_does_not_fall_below_a_third_towards_nothing() -> None:
    assert float(Curve.through([(256, 1e-3), (1024, 1e-1)]).at(1)) >= 1e-3 / 3


def test_batch_costs_its_run_and_its_images() -> None:
    cost = BatchCost(1e-3, Curve.through([(100, 1e-3), (200, 2e-3)]))
    assert abs(cost.of(5, 150) - (1e-3 + 5 * 1.5e-3)) <= 1e-12

"""Algebraic properties of the statistics, for values drawn at random: what may be said of each without its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graphs.operators.evaluate import evaluate

BETWEEN, SHIFTS, SCALES, REPEATS, RISES = "between", "shifts", "scales", "repeats", "rises"

TABLE: list[tuple[str, dict[str, Any], set[str]]] = [
    ("max", {}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("min", {}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("median", {}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("median", {"convention": "mean"}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("avg", {}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("sum", {}, {SCALES, RISES}),
    ("lp", {"p": 3}, {SCALES, RISES}),
    ("lp", {"p": 3, "form": "mean"}, {BETWEEN, SCALES, REPEATS, RISES}),
    ("gem", {"p": 3}, {BETWEEN, SCALES, REPEATS, RISES}),
    ("lse", {"r": 2}, {BETWEEN, SHIFTS, REPEATS, RISES}),
    ("lse", {"r": 2, "form": "sum"}, {SHIFTS, RISES}),
    ("softpool", {}, {BETWEEN, SHIFTS, REPEATS}),
    ("softmax", {"alpha": 2}, {BETWEEN, SHIFTS, REPEATS}),
    ("stochastic", {}, {BETWEEN, SCALES, REPEATS}),
    ("power", {"n": 2}, {BETWEEN, SCALES, REPEATS}),
    ("topk", {"k": 3}, {BETWEEN, SHIFTS, SCALES, RISES}),
    ("topk", {"k": 0.5}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("quantile", {"q": 0.3}, {BETWEEN, SHIFTS, SCALES, RISES}),
    ("rank", {"weighting": "weighted", "a": 0.1}, {SCALES, RISES}),
    ("mixed", {"alpha": 0.3}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("avgmax", {}, {BETWEEN, SHIFTS, SCALES, REPEATS, RISES}),
    ("adapool", {}, {BETWEEN, REPEATS}),
    ("std", {}, {SCALES, REPEATS}),
]


@pytest.mark.parametrize(("operator", "parameters", "keeps"), TABLE)
def test_a_statistic_keeps_what_the_table_says_and_no_more(
    rng: np.random.Generator, operator: str, parameters: dict[str, Any], keeps: set[str]
) -> None:
    x = rng.uniform(0.1, 4, (200, 6))

    def pool(values: np.ndarray) -> np.ndarray:
        return evaluate(operator, values, **parameters)[:, 0, 0]

    y = pool(x)
    found = set()
    if ((y >= x.min(axis=1) - 1e-9) & (y <= x.max(axis=1) + 1e-9)).all():
        found.add(BETWEEN)
    if np.allclose(pool(x + 1.5), y + 1.5, rtol=1e-9):
        found.add(SHIFTS)
    if np.allclose(pool(x * 2.5), y * 2.5, rtol=1e-9):
        found.add(SCALES)
    if np.allclose(pool(np.tile(x, 4)), y, rtol=1e-9):
        found.add(REPEATS)
    raised = x.copy()
    raised[np.arange(200), rng.integers(0, 6, 200)] += rng.uniform(0, 1, 200)
    if (pool(raised) >= y - 1e-9).all():
        found.add(RISES)
    assert found == keeps
    assert np.allclose(pool(rng.permuted(x, axis=1)), y, rtol=1e-9), "the order of cells does not count"

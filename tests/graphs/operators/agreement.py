"""Claims that every statistic of one channel keeps, against its formula in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.graphs.operators.evaluate import differentiate, evaluate
from tests.reference_pooling import Formula

ROWS, LENGTH, REGIONS, CELLS = 2, 23, 4, 7

GOLDEN = np.array([[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]], np.float64)
QUARTERS = np.array([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])


def golden(operator: str, **parameters: Any) -> np.ndarray:
    """The 4×4 matrix of the articles in windows of 2×2."""
    return evaluate(operator, GOLDEN.reshape(1, 16), QUARTERS, **parameters)[0, :, 0]


def pooled(formula: Formula, x: np.ndarray, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The formula over the present cells of each region, in order: (B,r,K)."""
    rows = []
    for row in x:
        regions = [np.atleast_1d(formula(row[cells[w > 0]], w[w > 0])) for cells, w in zip(index, weight, strict=True)]
        rows.append(regions)
    return np.array(rows)


def relative(found: np.ndarray, due: np.ndarray) -> float:
    """The largest difference in units of the largest magnitude."""
    return float(np.abs(found - due).max() / max(float(np.abs(due).max()), 1e-300))


def tables(rng: np.random.Generator, *, fractional: bool) -> tuple[np.ndarray, np.ndarray]:
    """Regions of distinct cells with some absent: index and weight; one region has one cell, none is empty."""
    index = np.array([rng.permutation(LENGTH)[:CELLS] for _ in range(REGIONS)])
    present = rng.random((REGIONS, CELLS)) < 0.6
    present[0] = np.arange(CELLS) == 2
    present[1:, 0] = True
    weight = rng.uniform(0.2, 2, (REGIONS, CELLS)) if fractional else np.ones((REGIONS, CELLS))
    return index, weight * present


def assert_agrees(
    rng: np.random.Generator,
    operator: str,
    formula: Formula,
    parameters: Mapping[str, Any],
    *,
    weights: bool = True,
    positive: bool = False,
    smooth: bool = True,
) -> None:
    """Forwards to 1e-10 in float64 and 1e-4 in float32, and the gradient to 1e-7 of central differences of the formula.

    Args:
        rng: draws the cells.
        operator: its name.
        formula: (x, w, **parameters) → K numbers.
        parameters: of both.
        weights: a weight other than 0 and 1 has a meaning.
        positive: draw values above 0 only.
        smooth: compare gradients, at values that lie apart from each other and from 0.
    """
    x = rng.permutation(np.linspace(0.1, 3, ROWS * LENGTH)).reshape(ROWS, LENGTH) + rng.uniform(0, 0.02, (ROWS, LENGTH))
    if not positive:
        x *= rng.choice([-1, 1], x.shape)
    index, weight = tables(rng, fractional=weights)
    whole = np.arange(LENGTH)[None]
    ones = np.ones(whole.shape)
    calculate = functools.partial(formula, **parameters)

    for cells, given in ((whole, None), (index, None), (index, weight)):
        full = np.ones(cells.shape) if given is None else given
        due = pooled(calculate, x, cells, full)
        assert relative(evaluate(operator, x, cells, given, **parameters), due) < 1e-10
        single = evaluate(operator, x.astype(np.float32), cells, given, **parameters)
        assert single.dtype == np.float32
        assert relative(single, due) < 1e-4
    assert relative(evaluate(operator, x, **parameters), pooled(calculate, x, whole, ones)) < 1e-10

    if smooth:
        long = x.astype(np.longdouble)
        heavy = weight.astype(np.longdouble)
        seed = rng.standard_normal(pooled(calculate, x, index, weight).shape)
        slopes = np.zeros(x.shape)
        for place in np.ndindex(x.shape):
            step = np.zeros(x.shape, np.longdouble)
            step[place] = 1e-6
            change = pooled(calculate, long + step, index, heavy) - pooled(calculate, long - step, index, heavy)
            slopes[place] = (seed * change).sum() / 2e-6
        assert relative(differentiate(operator, x, seed, index, weight, **parameters), slopes) < 1e-7


def assert_survives(rng: np.random.Generator, operator: str, **parameters: Any) -> None:
    """What stands in absent cells does not count, nor does it spoil gradients; a region without cells is 0, as is its gradient.

    Equal values, zeros and large ones give finite answers and finite gradients.
    """
    index = np.array([[0, 1, 2, 6], [3, 4, 5, 6], [6, 7, 6, 7]])
    weight = np.array([[1, 1, 0.5, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    for dtype, large in ((np.float64, 1e30), (np.float32, 1e20)):
        for values in (
            rng.uniform(0.5, 2, 6),
            np.zeros(6),
            np.full(6, 2.5),
            np.full(6, -2.5),
            rng.uniform(-1, 1, 6) * 1e-20,
        ):
            spoilt = [(large, -large), (np.inf, -np.inf), (np.nan, np.nan)]
            answers = []
            for pair in spoilt:
                x = np.array([[*values, *pair]], dtype)
                y = evaluate(operator, x, index, weight, **parameters)
                g = differentiate(operator, x, np.ones(y.shape), index, weight, **parameters)
                assert np.isfinite(y).all(), (operator, values, pair)
                assert not y[0, 2].any()
                assert np.isfinite(g).all(), (operator, values, pair)
                assert not g[0, 6:].any()
                answers.append((y, g))
            for y, g in answers[1:]:
                assert (y == answers[0][0]).all()
                assert (g == answers[0][1]).all()

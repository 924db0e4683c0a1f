from __future__ import annotations

import numpy as np
import pytest

from tests import reference_pooling as reference
from tests.graphs.operators.agreement import GOLDEN, assert_agrees, assert_survives
from tests.graphs.operators.evaluate import evaluate

NAMES = ["var", "std", "mean_std", "skew", "kurtosis"]


@pytest.mark.parametrize("operator", NAMES)
def test_moments_are_their_formula(rng: np.random.Generator, operator: str) -> None:
    assert_agrees(rng, operator, getattr(reference, operator), {})


def test_excess_is_three_less(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 40))
    difference = evaluate("kurtosis", x) - evaluate("kurtosis", x, excess=True)
    assert difference == pytest.approx(np.full((2, 1, 1), 3), rel=1e-12)


@pytest.mark.parametrize("operator", NAMES)
def test_absent_cells_and_equal_values_do_no_harm(rng: np.random.Generator, operator: str) -> None:
    assert_survives(rng, operator)


def test_the_articles_matrix_has_the_known_variance() -> None:
    assert evaluate("var", GOLDEN.reshape(1, 16)).item() == pytest.approx(6.05859, abs=5e-6)


@pytest.mark.parametrize("operator", ["var", "std", "skew", "kurtosis"])
def test_equal_values_give_exactly_0_at_any_level(rng: np.random.Generator, operator: str) -> None:
    for level in rng.uniform(0.1, 1e6, 20):
        y = evaluate(operator, np.full((1, 999), level, np.float32)).item()
        assert y == 0 if operator in {"skew", "kurtosis"} else y <= (level * 1e-6) ** (2 if operator == "var" else 1)


@pytest.mark.parametrize("operator", NAMES)
def test_an_offset_does_not_drown_float32(rng: np.random.Generator, operator: str) -> None:
    x = (rng.standard_exponential((1, 500)) + 1000).astype(np.float32)
    due = evaluate(operator, x.astype(np.float64))
    assert evaluate(operator, x) == pytest.approx(due, rel=1e-4)


@pytest.mark.parametrize("operator", ["std", "skew", "kurtosis"])
def test_huge_and_tiny_float32_neither_overflow_nor_vanish(rng: np.random.Generator, operator: str) -> None:
    x = rng.standard_exponential((1, 50))
    plain = evaluate(operator, x)
    for unit in (1e25, 1e-25):
        found = evaluate(operator, (x * unit).astype(np.float32))
        assert found == pytest.approx(plain * (unit if operator == "std" else 1), rel=1e-4)

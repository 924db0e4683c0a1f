from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import reference_pooling as reference
from tests.graphs.operators.agreement import assert_agrees, assert_survives, golden
from tests.graphs.operators.evaluate import evaluate

CASES: list[tuple[str, dict[str, Any]]] = [
    ("mixed", {"alpha": 0.0}),
    ("mixed", {"alpha": 0.3}),
    ("mixed", {"alpha": 1.0}),
    ("avgmax", {}),
    ("catavgmax", {}),
    ("adapool", {"beta": 0.0}),
    ("adapool", {"beta": 0.7}),
]


@pytest.mark.parametrize(("operator", "parameters"), CASES)
def test_mixtures_are_the_papers_formula(rng: np.random.Generator, operator: str, parameters: dict[str, Any]) -> None:
    assert_agrees(rng, operator, getattr(reference, operator), parameters)


@pytest.mark.parametrize(("operator", "parameters"), CASES)
def test_absent_cells_and_equal_values_do_no_harm(
    rng: np.random.Generator, operator: str, parameters: dict[str, Any]
) -> None:
    assert_survives(rng, operator, **parameters)


def test_mixed_goes_from_average_to_maximum() -> None:
    assert golden("mixed", alpha=0).tolist() == [2.75, 3.5, 4.5, 5]
    assert golden("mixed", alpha=1).tolist() == [5, 7, 8, 9]


def test_adapool_of_an_average_of_zero_is_finite() -> None:
    x = np.array([[-1.0, 1.0]])
    assert evaluate("adapool", x, beta=1).item() == 0

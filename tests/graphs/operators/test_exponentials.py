from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import reference_pooling as reference
from tests.graphs.operators.agreement import GOLDEN, assert_agrees, assert_survives, golden
from tests.graphs.operators.evaluate import evaluate

MEANS = [("softmax", {"alpha": 1.0}), ("softpool", {"tau": 1.0}), ("boltzmann", {"beta": 1.0})]


@pytest.mark.parametrize("r", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("form", ["sum", "mean"])
def test_lse_is_the_papers_formula(rng: np.random.Generator, r: float, form: str) -> None:
    assert_agrees(rng, "lse", reference.lse, {"r": r, "form": form})


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
def test_softmax_weighted_means_are_the_papers_formula(rng: np.random.Generator, sharpness: float) -> None:
    assert_agrees(rng, "softmax", reference.softmax, {"alpha": sharpness})
    assert_agrees(rng, "softpool", reference.softpool, {"tau": sharpness})
    assert_agrees(rng, "boltzmann", reference.boltzmann, {"beta": sharpness})


@pytest.mark.parametrize("alpha", [-3.0, 0.0])
def test_softmax_takes_any_sign(rng: np.random.Generator, alpha: float) -> None:
    assert_agrees(rng, "softmax", reference.softmax, {"alpha": alpha})


@pytest.mark.parametrize(("operator", "parameters"), [("lse", {"r": 10.0}), ("softmax", {"alpha": -2.0}), *MEANS])
def test_absent_cells_and_zeros_do_no_harm(rng: np.random.Generator, operator: str, parameters: dict[str, Any]) -> None:
    assert_survives(rng, operator, **parameters)


def test_the_articles_matrix_gives_the_known_numbers() -> None:
    assert golden("softpool", tau=1) == pytest.approx([4.5901, 6.8131, 7.7281, 8.8895], abs=5e-5)
    assert golden("lse", r=1) == pytest.approx([3.7989, 5.6710, 6.7473, 7.6393], abs=5e-5)
    assert evaluate("lse", GOLDEN.reshape(1, 16), r=1).item() == pytest.approx(6.70477, abs=5e-6)


@pytest.mark.parametrize(("operator", "parameters"), [("lse", {"r": 10.0}), *MEANS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_values_do_not_overflow(operator: str, parameters: dict[str, Any], dtype: type[np.floating]) -> None:
    x = np.array([[1e4, 1e4 + 1, -1e4]], dtype)
    y = evaluate(operator, x, **parameters).item()
    assert 1e4 < y < 1e4 + 1
    huge = np.finfo(dtype).max
    assert evaluate(operator, np.array([[huge, -huge]], dtype), **parameters).item() == huge


@pytest.mark.parametrize(("operator", "parameters"), [("lse", {"r": 2.0}), *MEANS])
def test_infinite_values_give_the_limit(operator: str, parameters: dict[str, Any]) -> None:
    inf = np.inf
    assert evaluate(operator, np.array([[-inf, -inf]]), **parameters).item() == -inf
    assert evaluate(operator, np.array([[1.0, inf]]), **parameters).item() == inf
    if operator == "lse":
        assert evaluate(operator, np.array([[-inf, 1.0]]), **parameters).item() == pytest.approx(1 - np.log(2) / 2)
    else:
        assert evaluate(operator, np.array([[-inf, 1.0, 1.0]]), **parameters).item() == 1


def test_softmax_goes_from_minimum_over_average_to_maximum(rng: np.random.Generator) -> None:
    x = rng.permutation(np.linspace(-1, 2, 30))[None]
    assert evaluate("softmax", x, alpha=-1e6).item() == pytest.approx(-1)
    assert evaluate("softmax", x, alpha=0).item() == pytest.approx(x.mean())
    assert evaluate("softmax", x, alpha=1e6).item() == pytest.approx(2)

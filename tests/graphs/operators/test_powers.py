from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from graphs.operators.powers import Gem, Lp
from tests import reference_pooling as reference
from tests.graphs.operators.agreement import GOLDEN, assert_agrees, assert_survives, golden
from tests.graphs.operators.evaluate import differentiate, evaluate


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.7, np.inf])
@pytest.mark.parametrize("form", ["sum", "mean"])
def test_lp_is_the_papers_formula(rng: np.random.Generator, p: float, form: str) -> None:
    assert_agrees(rng, "lp", reference.lp, {"p": p, "form": form})


@pytest.mark.parametrize("p", [-2.0, -1.0, 0.5, 1.0, 3.0, 10.0])
def test_gem_is_the_papers_formula(rng: np.random.Generator, p: float) -> None:
    assert_agrees(rng, "gem", reference.gem, {"p": p, "eps": 0.3})


@pytest.mark.parametrize("n", [0.0, 0.5, 1.0, 4.0])
def test_power_is_the_papers_formula(rng: np.random.Generator, n: float) -> None:
    assert_agrees(rng, "power", reference.power, {"n": n}, positive=n == 0)


def test_stochastic_is_the_papers_formula(rng: np.random.Generator) -> None:
    assert_agrees(rng, "stochastic", reference.stochastic, {})


@pytest.mark.parametrize(
    ("operator", "parameters"),
    [
        ("lp", {"p": 2}),
        ("lp", {"p": 0.5}),
        ("lp", {"p": "inf"}),
        ("gem", {}),
        ("gem", {"p": -1}),
        ("power", {"n": 2}),
        ("power", {"n": 0.5}),
        ("stochastic", {}),
    ],
)
def test_absent_cells_and_zeros_do_no_harm(rng: np.random.Generator, operator: str, parameters: dict[str, Any]) -> None:
    assert_survives(rng, operator, **parameters)


def test_the_articles_matrix_gives_the_known_numbers() -> None:
    assert golden("lp", p=2) == pytest.approx([6.2450, 8.3666, 10.4881, 11.2250], abs=5e-5)
    assert golden("lp", p=3) == pytest.approx([5.4401, 7.4650, 9.1098, 9.7470], abs=5e-5)
    assert golden("stochastic") == pytest.approx([3.5455, 5, 6.1111, 6.3], abs=5e-5)
    assert evaluate("gem", GOLDEN.reshape(1, 16)).item() == pytest.approx(5.20713, abs=5e-6)


def test_gem_with_p1_is_the_average_of_positive_values(rng: np.random.Generator) -> None:
    x = rng.uniform(0.1, 9, (3, 20))
    assert evaluate("gem", x, p=1)[:, 0, 0] == pytest.approx(x.mean(axis=1), rel=1e-12)


def test_power_with_n0_is_the_average_and_with_a_large_n_the_maximum(rng: np.random.Generator) -> None:
    x = rng.permutation(np.linspace(0.5, 3, 20))[None]
    assert evaluate("power", x, n=0).item() == pytest.approx(x.mean(), rel=1e-12)
    assert evaluate("power", x, n=1e4).item() == pytest.approx(3, rel=1e-12)


@pytest.mark.parametrize(
    ("operator", "parameters"), [("lp", {"p": 3}), ("gem", {"p": 5}), ("power", {"n": 4}), ("stochastic", {})]
)
def test_powers_of_huge_and_tiny_float32_neither_overflow_nor_vanish(
    rng: np.random.Generator, operator: str, parameters: dict[str, Any]
) -> None:
    x = rng.uniform(0.5, 1, (2, 30))
    if operator == "gem":
        parameters = {**parameters, "eps": 1e-30}
    plain = evaluate(operator, x, **parameters)
    for unit in (1e20, 1e37, 1e-20):
        found = evaluate(operator, (x * unit).astype(np.float32), **parameters)
        assert found == pytest.approx(plain * unit, rel=1e-5)


def test_an_infinite_value_gives_infinity() -> None:
    x = np.array([[1.0, np.inf, 2.0]])
    for operator in ("lp", "gem", "power", "stochastic"):
        assert evaluate(operator, x).item() == np.inf


def test_lp_sends_the_gradient_of_a_zero_region_nowhere() -> None:
    for p in (0.5, 1, 2, np.inf):
        assert (differentiate("lp", np.zeros((1, 5)), np.ones((1, 1, 1)), p=p) == 0).all()


@pytest.mark.parametrize("p", [0, -1, float("nan"), "two"])
def test_lp_refuses_an_exponent_that_is_no_positive_number(p: object) -> None:
    with pytest.raises(ValidationError):
        Lp.model_validate({"p": p})


@pytest.mark.parametrize("p", [0, 0.001, float("inf"), float("nan")])
def test_gem_refuses_exponents_near_0_and_infinite_ones(p: float) -> None:
    with pytest.raises(ValidationError):
        Gem.model_validate({"p": p})

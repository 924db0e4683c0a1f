from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from graphs.operators.orders import Ordinal, Rank, TopK
from tests import reference_pooling as reference
from tests.graphs.operators.agreement import assert_agrees, assert_survives, golden
from tests.graphs.operators.evaluate import differentiate, evaluate

CASES: list[tuple[str, dict[str, Any]]] = [
    ("topk", {"k": 1}),
    ("topk", {"k": 3}),
    ("topk", {"k": 100}),
    ("topk", {"k": 0.4}),
    ("median", {"convention": "lower"}),
    ("median", {"convention": "mean"}),
    ("median", {"convention": "upper"}),
    ("quantile", {"q": 0.0}),
    ("quantile", {"q": 0.3}),
    ("quantile", {"q": 1.0}),
    ("rank", {"weighting": "average", "t": 2}),
    ("rank", {"weighting": "weighted", "a": 0.3}),
    ("ordinal", {"ranks": np.array([0.5, 0.3, 0.0, 0.2])}),
    ("ordinal", {"ranks": np.linspace(1, 0.1, 40)}),
    ("kmax", {"k": 3}),
    ("kmax", {"k": 30}),
]


@pytest.mark.parametrize(("operator", "parameters"), CASES)
def test_order_statistics_are_those_of_sorted_values(
    rng: np.random.Generator, operator: str, parameters: dict[str, Any]
) -> None:
    assert_agrees(rng, operator, getattr(reference, operator), parameters, weights=False)


@pytest.mark.parametrize(("operator", "parameters"), CASES)
def test_absent_cells_and_ties_do_no_harm(rng: np.random.Generator, operator: str, parameters: dict[str, Any]) -> None:
    assert_survives(rng, operator, **parameters)


def test_the_articles_matrix_gives_the_known_medians() -> None:
    assert golden("median").tolist() == [2, 2, 3, 4]
    assert golden("median", convention="mean").tolist() == [2.5, 3, 4.5, 4.5]


def test_the_median_is_torchs_and_numpys(rng: np.random.Generator) -> None:
    import torch

    for n in (1, 2, 9, 16):
        x = rng.integers(0, 5, (3, n)).astype(float)
        assert (evaluate("median", x)[:, 0, 0] == torch.tensor(x).median(dim=1).values.numpy()).all()
        assert (evaluate("median", x, convention="mean")[:, 0, 0] == np.median(x, axis=1)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_share_is_rounded_up_but_not_for_a_rounding_error(dtype: type[np.floating]) -> None:
    x = np.arange(100, 0, -1, dtype=dtype)[None]
    for share, count in ((0.07, 7), (0.071, 8), (0.29, 29), (0.001, 1), (0.999, 100)):
        assert evaluate("topk", x, k=share).item() == pytest.approx(100 - (count - 1) / 2, rel=1e-6)


def test_topk_gives_its_gradient_to_the_first_of_equals() -> None:
    x = np.array([[1.0, 2.0, 2.0, 2.0]])
    assert differentiate("topk", x, np.ones((1, 1, 1)), k=2).tolist() == [[0, 0.5, 0.5, 0]]


def test_ordinal_weights_of_one_maximum_and_of_equal_ones_the_average(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 9))
    assert evaluate("ordinal", x, ranks=np.ones(1))[:, 0, 0] == pytest.approx(x.max(axis=1))
    assert evaluate("ordinal", x, ranks=np.full(9, 3))[:, 0, 0] == pytest.approx(x.mean(axis=1))


def test_kmax_keeps_the_order(rng: np.random.Generator) -> None:
    assert evaluate("kmax", np.array([[3.0, 9, 1, 7, 9, 2]]), k=3)[0, 0].tolist() == [9, 7, 9]
    assert evaluate("kmax", np.array([[3.0, 9]]), k=3)[0, 0].tolist() == [3, 9, 0]


def test_infinite_values_are_values() -> None:
    x = np.array([[-np.inf, -np.inf, 1.0, np.inf]])
    assert evaluate("median", x).item() == -np.inf
    assert evaluate("median", x, convention="upper").item() == 1
    assert evaluate("topk", x, k=1).item() == np.inf


@pytest.mark.parametrize("k", [0, -1, 1.5, float("nan"), float("inf")])
def test_topk_and_rank_refuse_what_is_no_number_of_cells(k: float) -> None:
    with pytest.raises(ValidationError):
        TopK.model_validate({"k": k})
    with pytest.raises(ValidationError):
        Rank.model_validate({"t": k})


@pytest.mark.parametrize("ranks", [np.array([1, -1]), np.array([1, np.nan]), "ab", None])
def test_ordinal_refuses_weights_below_0(ranks: object) -> None:
    with pytest.raises(ValidationError):
        Ordinal.model_validate({"ranks": ranks})

"""The arrays of operators with weights: right shapes pass, everything else is said clearly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from graphs.operators.catalogue import CATALOGUE, find
from graphs.operators.weights import WeightError, checked_weights

C, L = 4, 9


def test_every_array_that_is_fed_has_its_shape_in_the_record() -> None:
    for operator in CATALOGUE.values():
        arrays = {
            name
            for name, field in operator.parameters.model_fields.items()
            if field.is_required() and isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("feed")
        }
        assert arrays == set(operator.weights), operator.name
        assert not operator.weights or operator.learnable, operator.name


def test_right_shapes_pass_and_leading_axes_of_1_may_be_left_out(rng: np.random.Generator) -> None:
    hidden, score = rng.standard_normal((7, C)), rng.standard_normal(7)
    checked = checked_weights(find("mil"), {"hidden": hidden, "score": score, "mask": score}, C, L)
    assert checked["hidden"] is hidden
    assert checked["score"].shape == (1, 7)
    assert set(checked) == {"hidden", "score"}
    assert checked_weights(find("attention"), {"query": rng.integers(0, 9, C)}, C, L)["query"].shape == (1, C)
    assert checked_weights(find("learned_regions"), {"masks": np.ones((3, L))}, C, L)["masks"].shape == (3, L)


@pytest.mark.parametrize(
    ("name", "arrays", "says"),
    [
        ("attention", {}, "attention: expected a tensor 'query' of shape [Q, C], got none"),
        ("attention", {"query": [1.0] * C}, "got none"),
        (
            "attention",
            {"query": np.ones((2, 5))},
            "query: expected the shape [Q, C] with C = 4 (channels of the tensor)",
        ),
        ("attention", {"query": np.ones((2, 5))}, "got [2, 5]"),
        ("attention", {"query": np.ones((1, 1, C))}, "query: expected the shape [Q, C], got [1, 1, 4]"),
        ("attention", {"query": np.ones(())}, "query: expected the shape [Q, C], got []"),
        ("attention", {"query": np.ones((0, C))}, "query: expected the shape [Q, C], got [0, 4]"),
        ("attention", {"query": np.ones(C, bool)}, "query: expected numbers, got bool"),
        ("attention", {"query": np.array([1, np.nan, 1, 1])}, "query: expected finite numbers"),
        ("mil", {"hidden": np.ones((7, C)), "score": np.ones((2, 6))}, "with H = 7 (as in 'hidden'), got [2, 6]"),
        (
            "fisher",
            {"means": np.ones((2, C)), "sigmas": np.ones((2, C)), "priors": np.array([1.0, 0.0])},
            "priors: expected numbers above 0, got 0",
        ),
        ("learned_regions", {"masks": np.ones((3, 8))}, "with L = 9 (cells of its plane), got [3, 8]"),
    ],
)
def test_wrong_arrays_are_refused(name: str, arrays: Mapping[str, object], says: str) -> None:
    with pytest.raises(WeightError) as caught:
        checked_weights(find(name), arrays, C, L)
    assert says in str(caught.value)

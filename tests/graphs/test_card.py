"""The card: into a file's metadata and back, and mistakes found."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from pydantic import ValidationError

from graphs.card import ModelCard, Preprocessing
from tests.tiny import TinyClassifier, card


def test_card_survives_the_file() -> None:
    model = ir.from_proto(TinyClassifier.random(0).to_onnx(None))
    assert ModelCard.read(model) is None
    given = card(head={"pooling": "gem", "p": 3.0}, min_height=7, training={"seed": 0})
    given.write(model)
    again = ir.from_proto(ir.to_proto(model))
    assert ModelCard.read(again) == given


def test_typing_mistake_in_a_card_is_an_error() -> None:
    with pytest.raises(ValidationError, match="lables"):
        ModelCard.model_validate({"lables": ["cat"]})


@pytest.mark.parametrize(
    "numbers",
    [
        {"std": [0.0]},
        {"scale": 0},
        {"mean": [0.1, 0.2]},
        {"mean": [float("nan")]},
        {"channels": "L", "std": [1, 1, 1]},
        {"std": []},
    ],
)
def test_numbers_that_cannot_be_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate(numbers)

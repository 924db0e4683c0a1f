"""The shipped models on real digits, by the service: every format, from 8 pixels to 12 megapixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from export.digits import load_split
from export.samples import FORMATS, encode, sample
from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings
from tests.e2e.server import ROOT


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = Settings(models=ROOT / "models", provider="cpu")
    with TestClient(create_app(settings, Repository.load(settings))) as running:
        yield running


def label(client: TestClient, data: bytes, model: str = "digits") -> str:
    response = client.post(f"/v1/classify?model={model}&top=1", content=data)
    assert response.status_code == 200, response.text
    return str(response.json()["results"][0]["predictions"][0]["label"])


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("width", "height", "digit"), [(8, 8, 5), (33, 71, 7), (640, 480, 3), (4000, 3000, 2)])
def test_digit_gets_its_label(client: TestClient, ending: str, width: int, height: int, digit: int) -> None:
    assert label(client, encode(sample(load_split().test, digit, width, height), ending)) == str(digit)


@pytest.mark.parametrize("model", ["digits", "digits-gap", "digits-gmp", "digits-attention"])
def test_each_model_reads_digits_it_has_never_seen(client: TestClient, model: str, rng: np.random.Generator) -> None:
    """At least 50 of 60 at 24 to 48 px. The table in the README has the real figures; this finds a model that is broken."""
    test = load_split().test
    right = 0
    for index in rng.choice(len(test.labels), 60, replace=False):
        side = int(rng.integers(24, 49))
        one = type(test)(test.images[index : index + 1], test.labels[index : index + 1])
        digit = int(test.labels[index])
        right += label(client, encode(sample(one, digit, side, side), "png"), model) == str(digit)
    assert right >= 50

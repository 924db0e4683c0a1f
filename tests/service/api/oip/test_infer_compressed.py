"""Inference by the protocol over HTTP, compressed: requests whole and broken, bombs, and answers as they are asked for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.service.api.oip.inference import COLOUR, INFER, POOL, assert_healthy, outputs, pixels_of, tail
from tests.service.api.serving import serving
from tests.tiny import card


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    with serving(models=model_folder) as made:
        yield made


def test_compressed_requests(client: TestClient) -> None:
    document = {"inputs": [pixels_of([1, 30, 30, 3])]}
    plain = client.post(INFER, json=document).json()
    for encoding, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        content = pack(json.dumps(document).encode())
        assert client.post(INFER, content=content, headers={"Content-Encoding": encoding}).json() == plain
        response = client.post(INFER, content=content[:-7], headers={"Content-Encoding": encoding})
        assert_error(response, 400, "malformed", "Content-Encoding")
    for encoding in ("br", "gzip, gzip", "nonsense"):
        response = client.post(INFER, content=b"x", headers={"Content-Encoding": encoding})
        assert_error(response, 415, "unsupported_encoding")
        assert response.headers["accept-encoding"] == "gzip, deflate"
    assert_healthy(client)


def test_header_length_is_that_of_what_comes_out(client: TestClient, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (1, 5, 5, 3), np.uint8)
    given = {"name": "images", "shape": [1, 5, 5, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 75}}
    asked = tail({"inputs": [given]}, pixels.tobytes())
    headers = {**asked["headers"], "Content-Encoding": "gzip"}
    found = outputs(client.post(INFER, content=gzip.compress(asked["content"]), headers=headers))
    assert relative_error(found["logits"][0], COLOUR.logits(pixels[0], card().preprocessing)) < 1e-4


def test_bomb_is_413(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=10_000)
    content = gzip.compress(b" " * 10_000_000, 9)
    assert len(content) < 10_000
    response = client.post(INFER, content=content, headers={"Content-Encoding": "gzip"})
    assert_error(response, 413, "payload_too_large", "once decompressed")
    assert_error(client.post(INFER, content=b"x" * 10_001), 413, "payload_too_large")
    assert_healthy(client)


def test_answers_are_compressed_as_asked_where_it_pays(client: TestClient) -> None:
    document = {"inputs": [pixels_of([8, 3, 3, 3])]}
    for accept, encoding in (
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.1, deflate", "deflate"),
        ("br", None),
    ):
        response = client.post(INFER, json=document, headers={"Accept-Encoding": accept})
        assert response.headers.get("content-encoding") == encoding
        assert outputs(response)["logits"].shape == (8, 3)
    x = {"name": "tensor", "shape": [1], "datatype": "INT8", "data": [1]}
    small = client.post(POOL, json={"inputs": [x], "parameters": {"op": "max"}}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers

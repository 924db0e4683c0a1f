"""Tensors without elements: the same answer in every form that they come in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.claims import assert_error
from tests.service.api.tensors import npy

RAW = {"content-type": "application/octet-stream"}


@pytest.mark.parametrize("shape", [(0, 2, 2), (3, 0, 4, 4), (2, 0, 5, 3)], ids=str)
def test_no_elements_in_every_form(client: TestClient, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, np.float32)
    sizes = ",".join(map(str, shape))
    flat = {"shape": shape, "data": []}
    asked = {
        "json": client.post("/v1/pool", json={"op": "max", "tensor": flat}),
        "npy": client.post("/v1/pool?op=max", content=npy(x), headers={"content-type": "application/x-npy"}),
        "raw": client.post(f"/v1/pool?op=max&shape={sizes}&dtype=float32", content=b"", headers=RAW),
        "chunked": client.post(f"/v1/pool?op=max&shape={sizes}&dtype=float32", content=iter([b""]), headers=RAW),
    }
    assert {form: answer.status_code for form, answer in asked.items()} == dict.fromkeys(asked, 200)
    expected = np.load(io.BytesIO(asked["npy"].content))
    assert asked["json"].json()["tensor"]["shape"] == list(expected.shape)
    for form in ("raw", "chunked"):
        assert asked[form].headers["x-tensor-shape"] == ",".join(map(str, expected.shape))
        assert asked[form].content == expected.tobytes()


def test_nothing_where_there_should_be_elements(client: TestClient) -> None:
    answer = client.post("/v1/pool?op=max&shape=2,2&dtype=float32", content=b"", headers=RAW)
    assert_error(answer, 422, "invalid_tensor", "expected 16 bytes for (2,2) float32, got 0")
    for content_type in ("application/octet-stream", "application/json", "application/x-npy", "image/png"):
        answer = client.post("/v1/pool?op=max", content=b"", headers={"content-type": content_type})
        assert_error(answer, 400, "malformed", "expected a body, got none")

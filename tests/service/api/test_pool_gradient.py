"""Gradients and unpooling over HTTP: the way back through what was pooled."""

from __future__ import annotations

import numpy as np
from starlette.testclient import TestClient

from tests.service.api.tensors import MATRIX, npz, read_npz


def test_gradient_of_the_maximum_is_its_mask(client: TestClient) -> None:
    request = {"op": "max", "kernel": 2, "tensor": MATRIX, "grad_output": [[1, 2], [3, 4]]}
    body = client.post("/v1/pool/gradient", json=request).json()
    assert set(body) == {"op", "shape", "dtype", "grad_input"}
    expected = np.zeros((4, 4))
    expected[1, 0], expected[1, 2], expected[2, 1], expected[3, 3] = 1, 2, 3, 4
    assert body["grad_input"] == expected.tolist()
    arrays = npz(tensor=np.float32(MATRIX), grad_output=np.float32([[1, 2], [3, 4]]))
    answered = read_npz(client.post("/v1/pool/gradient?op=max&kernel=2", content=arrays).content)
    assert answered["grad_input"].tolist() == expected.tolist()


def test_gradient_is_by_ones_where_none_is_given(client: TestClient) -> None:
    body = client.post("/v1/pool/gradient", json={"op": "avg", "kernel": 2, "tensor": MATRIX}).json()
    assert body["grad_input"] == [[0.25] * 4] * 4


def test_unpool_undoes_what_pool_did(client: TestClient) -> None:
    pooled = client.post("/v1/pool", json={"op": "max", "kernel": 2, "return_indices": True, "tensor": MATRIX}).json()
    request = {"op": "max", "tensor": pooled["tensor"], "indices": pooled["indices"], "output_size": [4, 4]}
    response = client.post("/v1/unpool", json=request)
    assert response.status_code == 200, response.text
    x = np.float32(MATRIX)
    keep = np.zeros(16, bool)
    keep[np.ravel(pooled["indices"])] = True
    assert response.json()["tensor"] == np.where(keep.reshape(4, 4), x, 0).tolist()

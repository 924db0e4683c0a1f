"""Tensors over HTTP: every form in and out, against NumPy; several operators at once; what comes beside the tensor."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.service.api.tensors import MATRIX, POOLED, maximum, npy, npz, read_npz

NPY = {"content-type": "application/x-npy"}


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(3, 2, 8, 6)).astype(np.float32)


Read = Callable[[Any], np.ndarray]


def from_json(response: Any) -> np.ndarray:
    body = response.json()
    assert set(body) == {"op", "shape", "dtype", "tensor"}
    tensor = body["tensor"]
    if isinstance(tensor, dict):
        assert (tensor["shape"], tensor["dtype"]) == (body["shape"], body["dtype"])
        if "base64" in tensor:
            return np.frombuffer(base64.b64decode(tensor["base64"]), tensor["dtype"]).reshape(tensor["shape"])
        return np.array(tensor["data"], body["dtype"]).reshape(body["shape"])
    array = np.array(tensor, body["dtype"])
    assert list(array.shape) == body["shape"]
    return array


def from_raw(response: Any) -> np.ndarray:
    shape = tuple(map(int, response.headers["x-tensor-shape"].split(",")))
    return np.frombuffer(response.content, response.headers["x-tensor-dtype"]).reshape(shape)


READ: dict[str, Read] = {
    "application/json": from_json,
    "application/x-npy": lambda response: np.load(io.BytesIO(response.content)),
    "application/x-npz": lambda response: read_npz(response.content)["tensor"],
    "application/octet-stream": from_raw,
}


def requests(x: np.ndarray) -> dict[str, dict[str, Any]]:
    """The same request in every form, with the media type that answers it by default."""
    query = {"op": "max", "kernel": "2"}
    raw = {"shape": ",".join(map(str, x.shape)), "dtype": x.dtype.name}
    stated = {"shape": x.shape, "dtype": x.dtype.name}
    encoded = base64.b64encode(x.tobytes()).decode()
    return {
        "nested": {"json": {"op": "max", "kernel": 2, "tensor": x.tolist(), "dtype": x.dtype.name}},
        "flat": {"json": {"op": "max", "kernel": [2, 2], "tensor": {**stated, "data": x.ravel().tolist()}}},
        "base64": {"json": {"op": "max", "kernel": 2, "tensor": {**stated, "base64": encoded}}},
        "parameters beside JSON": {"json": {"tensor": x.tolist(), "dtype": x.dtype.name}, "params": query},
        "npy": {"content": npy(x), "headers": NPY, "params": query},
        "npy, unsaid": {"content": npy(x), "params": query},
        "npz": {"content": npz(tensor=x), "headers": {"content-type": "application/x-npz"}, "params": query},
        "npz of one": {"content": npz(any_name=x), "headers": {"content-type": "application/x-npz"}, "params": query},
        "raw": {
            "content": x.tobytes(),
            "headers": {"content-type": "application/octet-stream"},
            "params": {**query, **raw},
        },
        "raw, as curl says it": {
            "content": x.tobytes(),
            "headers": {"content-type": "application/x-www-form-urlencoded"},
            "params": {**query, **raw},
        },
        "form": {"files": {"tensor": npy(x)}, "data": query},
        "form of text": {
            "files": {"a": (None, "max")},
            "data": {"op": "max", "kernel": "2,2", "tensor": json.dumps(x.tolist())},
        },
    }


DEFAULT = {
    "nested": "json",
    "flat": "json",
    "base64": "json",
    "parameters beside JSON": "json",
    "npz": "x-npz",
    "npz of one": "x-npz",
    "raw": "octet-stream",
    "raw, as curl says it": "octet-stream",
    "form of text": "json",
}


@pytest.mark.parametrize("form", requests(np.zeros((1,), np.float32)))
def test_every_form_in_and_the_answer_as_it_came(client: TestClient, x: np.ndarray, form: str) -> None:
    request = requests(x)[form]
    if form == "form of text":
        del request["files"]["a"]
        request["files"] = {name: (None, value) for name, value in request.pop("data").items()}
    response = client.post("/v1/pool", **request)
    assert response.status_code == 200, response.text
    media_type = f"application/{DEFAULT.get(form, 'x-npy')}"
    assert response.headers["content-type"] == media_type
    assert int(response.headers["content-length"]) == len(response.content)
    got = READ[media_type](response)
    assert got.dtype == x.dtype
    assert np.array_equal(got, maximum(x))


@pytest.mark.parametrize("accept", READ)
@pytest.mark.parametrize("form", ["nested", "npy", "raw", "form"])
def test_every_form_out_whatever_came(client: TestClient, x: np.ndarray, form: str, accept: str) -> None:
    request = requests(x)[form]
    request["headers"] = {**request.get("headers", {}), "accept": accept}
    response = client.post("/v1/pool", **request)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == accept
    assert np.array_equal(READ[accept](response), maximum(x))


def test_json_answer_has_the_form_that_came(client: TestClient, x: np.ndarray) -> None:
    for form, member in (("flat", "data"), ("base64", "base64")):
        tensor = client.post("/v1/pool", **requests(x)[form]).json()["tensor"]
        assert set(tensor) == {"shape", "dtype", member}


def test_the_matrix_of_the_textbooks(client: TestClient) -> None:
    response = client.post("/v1/pool", json={"op": "max", "kernel": 2, "tensor": MATRIX})
    assert response.text == '{"op":"max","shape":[2,2],"dtype":"float32","tensor":[[5.0,7.0],[8.0,9.0]]}'
    for name in ("server-timing", "x-request-id"):
        assert name in response.headers
    stages = [part.partition(";dur=") for part in response.headers["server-timing"].split(", ")]
    assert [name for name, _, _ in stages] == ["decode", "queue", "infer", "encode"]
    assert all(float(duration) >= 0 for _, _, duration in stages)


def test_the_callers_id_comes_back(client: TestClient) -> None:
    request = {"op": "max", "kernel": 2, "tensor": MATRIX}
    assert client.post("/v1/pool", json=request, headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int64", "uint8", "uint64"])
def test_dtype_stays_what_it_is_under_the_maximum(client: TestClient, rng: np.random.Generator, dtype: str) -> None:
    x = rng.integers(0, 100, (2, 4, 4)).astype(dtype)
    got = np.load(io.BytesIO(client.post("/v1/pool?op=max&kernel=2", content=npy(x), headers=NPY).content))
    assert got.dtype == x.dtype
    assert np.array_equal(got, maximum(x))


def test_several_operators_on_one_upload_answer_in_order(client: TestClient, x: np.ndarray) -> None:
    ops = [{"op": "max"}, {"op": "avg", "kernel": 4, "stride": 2}, {"op": "min"}, {"op": "max", "return_indices": True}]
    response = client.post("/v1/pool", json={"ops": ops, "kernel": 2, "tensor": x.tolist()})
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert [result["op"] for result in results] == ["max", "avg", "min", "max"]
    assert [result["shape"] for result in results] == [[3, 2, 4, 3], [3, 2, 3, 2], [3, 2, 4, 3], [3, 2, 4, 3]]
    assert np.array_equal(np.float32(results[0]["tensor"]), maximum(x))
    assert np.array_equal(np.float32(results[2]["tensor"]), -maximum(-x))
    assert "indices" in results[3]


def test_several_operators_fit_one_npz(client: TestClient) -> None:
    request = {"ops": [{"op": "max"}, {"op": "min"}], "kernel": 2, "tensor": MATRIX}
    answered = read_npz(client.post("/v1/pool", json=request, headers={"accept": "application/x-npz"}).content)
    assert set(answered) == {"0_tensor", "1_tensor"}
    assert answered["0_tensor"].tolist() == POOLED
    response = client.post("/v1/pool", json=request, headers={"accept": "application/x-npy"})
    assert response.status_code == 406


def test_indices_come_beside_the_tensor(client: TestClient) -> None:
    request = {"op": "max", "kernel": 2, "return_indices": True, "return_counts": True, "tensor": MATRIX}
    body = client.post("/v1/pool", json=request).json()
    assert body["tensor"] == POOLED
    assert body["indices"] == [[4, 6], [9, 15]]
    assert body["counts"] == [[4, 4], [4, 4]]
    query = "op=max&kernel=2&return_indices=true"
    response = client.post(f"/v1/pool?{query}", content=npy(np.float32(MATRIX)), headers=NPY)
    assert response.headers["content-type"] == "application/x-npz"
    assert read_npz(response.content)["indices"].tolist() == [[4, 6], [9, 15]]
    named = client.post(
        f"/v1/pool?{query}", content=npy(np.float32(MATRIX)), headers={**NPY, "accept": "application/x-npy"}
    )
    assert (named.status_code, named.json()["code"]) == (406, "not_acceptable")


def test_counts_are_of_the_regions_even_where_one_answer_comes_of_all(client: TestClient) -> None:
    body = client.post("/v1/pool", json={"op": "rmac", "return_counts": True, "tensor": [MATRIX] * 2}).json()
    assert body["shape"] == [2]
    assert min(body["counts"]) >= 1
    assert max(body["counts"]) == 16


def test_arrays_come_as_json_npz_form_and_text_in_a_query(client: TestClient) -> None:
    mask = np.array([[1, 1, 0, 0]] * 4, bool)
    expected = np.float32(MATRIX)[mask].max()
    answers = [
        client.post("/v1/pool", json={"op": "max", "tensor": MATRIX, "mask": mask.tolist()}),
        client.post("/v1/pool?op=max", content=npz(tensor=np.float32(MATRIX), mask=mask)),
        client.post("/v1/pool", data={"op": "max"}, files={"tensor": npy(np.float32(MATRIX)), "mask": npy(mask)}),
        client.post(
            "/v1/pool",
            params={"op": "max", "mask": json.dumps(mask.tolist())},
            content=npy(np.float32(MATRIX)),
            headers=NPY,
        ),
    ]
    for response in answers:
        assert response.status_code == 200, response.text
        again = client.post(response.request.url.raw_path.decode(), **_same(response, "application/json"))
        assert np.float32(again.json()["tensor"]).item() == expected


def _same(response: httpx2.Response, accept: str) -> dict[str, Any]:
    """The request of an answer once more, with another Accept."""
    headers = (
        {"content-type": response.request.headers["content-type"]} if "content-type" in response.request.headers else {}
    )
    return {"content": response.request.read(), "headers": {**headers, "accept": accept}}


def test_large_tensor_goes_through_a_thread_and_comes_back_whole(client: TestClient, rng: np.random.Generator) -> None:
    x = rng.normal(size=(8, 64, 56, 56)).astype(np.float16)
    response = client.post("/v1/pool?op=max&kernel=2", content=npy(x), headers=NPY)
    assert np.array_equal(np.load(io.BytesIO(response.content)), maximum(x))
    assert client.app.state.poolserve.pool_admission.waiting == 0  # type: ignore[attr-defined]


def test_tensor_of_json_that_is_parsed_in_a_thread(client: TestClient, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 64, 64)).astype(np.float32)
    response = client.post("/v1/pool", json={"op": "max", "kernel": 2, "tensor": x.tolist()})
    assert np.array_equal(from_json(response), maximum(x))

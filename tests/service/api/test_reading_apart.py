"""JSON that would hold the event loop is read by the other process, once that is there, to the same answers and errors."""

from __future__ import annotations

import json
import time

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from service.cores import available_cores
from service.reader.channel import Task
from service.reader.reader import Reader
from tests.conftest import MakeClient

LIMIT_S = 60

pytestmark = pytest.mark.skipif(available_cores() < 2, reason="one core: there is no reader")


def pool(tensor: np.ndarray, **members: object) -> bytes:
    return orjson.dumps({"op": "max", "kernel": 2, "tensor": tensor, **members}, option=orjson.OPT_SERIALIZE_NUMPY)


def protocol(name: str, tensor: np.ndarray, **parameters: object) -> bytes:
    one = {"name": name, "datatype": "FP32", "shape": list(tensor.shape), "data": tensor.ravel()}
    return orjson.dumps({"inputs": [one], "parameters": parameters}, option=orjson.OPT_SERIALIZE_NUMPY)


def answer(client: TestClient, path: str, body: bytes) -> tuple[int, object]:
    """Status and document, but for the request's id."""
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    document = response.json()
    document.pop("request_id", None)
    return response.status_code, document


def test_large_json_is_read_apart(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    tasks: list[Task] = []
    begin = Reader.begin

    def watched(self: Reader, number: int, task: Task, *parts: bytes | memoryview) -> object:
        tasks.append(task)
        return begin(self, number, task, *parts)

    monkeypatch.setattr(Reader, "begin", watched)
    small, large = (rng.normal(size=size).astype(np.float32) for size in ((8, 32, 32), (500, 32, 32)))
    ragged = pool(small).replace(b"]]", b",1]]", 1)
    nan = small.copy()
    nan[3, 4, 5] = np.nan
    with_nan = json.dumps({"op": "max", "kernel": 2, "tensor": nan.tolist()}).replace("NaN", '"NaN"').encode()
    image = rng.integers(0, 256, (1, 3, 90, 80)).astype(np.float32)
    cases = {
        "larger than a turn": ("/v1/pool", pool(large), 200, [Task.MEMBERS]),
        "larger, and wrong": ("/v1/pool", pool(large, kernel=-1), 422, [Task.MEMBERS]),
        "ragged": ("/v1/pool", ragged, 422, [Task.MEMBERS]),
        "NaN": ("/v1/pool", with_nan, 200, [Task.MEMBERS]),
        "protocol": ("/v2/models/pool/infer", protocol("tensor", small, op="max", kernel=2), 200, [Task.PROTOCOL]),
        "protocol, no such op": ("/v2/models/pool/infer", protocol("tensor", small, op="m"), 400, [Task.PROTOCOL]),
        "protocol, wrong": ("/v2/models/pool/infer", protocol("tensor", small)[:-1], 400, [Task.PROTOCOL]),
        "protocol's image": ("/v2/models/colour/infer", protocol("x", image), None, [Task.PROTOCOL]),
    }
    alone, client = make_client(json_reader=False), make_client()
    limit = time.monotonic() + LIMIT_S
    while not tasks:  # the first ones start the process
        assert time.monotonic() < limit
        assert answer(client, "/v1/pool", pool(large))[0] == 200
    for title, (path, body, status, expected) in cases.items():
        tasks.clear()
        said = answer(client, path, body)
        assert tasks == expected, title
        assert said == answer(alone, path, body), title
        assert tasks == expected, title
        assert status in {None, said[0]}, title

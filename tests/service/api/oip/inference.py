"""Inference by the protocol over HTTP: what is sent, what is read of the answer, and that a server still answers."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from tests.tiny import TinyClassifier

COLOUR = TinyClassifier.random(1)
INFER = "/v2/models/colour/infer"
POOL = "/v2/models/pool/infer"
LENGTH = "Inference-Header-Content-Length"


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def tail(document: dict[str, Any], *buffers: bytes) -> dict[str, Any]:
    """Arguments of a request with bytes behind its JSON."""
    text = json.dumps(document).encode()
    return {"content": b"".join([text, *buffers]), "headers": {LENGTH: str(len(text))}}


def pixels_of(shape: list[int], datatype: str = "UINT8", name: str = "images") -> dict[str, Any]:
    count = int(np.prod(shape))
    return {"name": name, "shape": shape, "datatype": datatype, "data": [1] * count}


def outputs(response: Any) -> dict[str, np.ndarray]:
    assert response.status_code == 200, response.text
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in response.json()["outputs"]}


def assert_healthy(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    x = {"name": "tensor", "shape": [2], "datatype": "INT8", "data": [1, 3]}
    assert client.post(POOL, json={"inputs": [x], "parameters": {"op": "max"}}).json()["outputs"][0]["data"] == [3]
    assert client.post(INFER, json={"inputs": [pixels_of([1, 3, 3, 3])]}).status_code == 200

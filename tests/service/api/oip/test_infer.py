"""Inference by the protocol over HTTP: what models and pooling take and give."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from starlette.testclient import TestClient

from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.service.api.oip.inference import COLOUR, INFER, LENGTH, POOL, outputs, pixels_of, png, tail
from tests.service.api.serving import serving
from tests.tiny import LABELS, card


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    with serving(models=model_folder) as made:
        yield made


def test_body_without_json_is_a_picture(client: TestClient, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (9, 7, 3), np.uint8)
    response = client.post(INFER, content=png(pixels), headers={LENGTH: "0", "Accept-Encoding": "identity"})
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    document = json.loads(response.content[:length])
    assert [output["parameters"] for output in document["outputs"]] == [{"binary_data_size": 12}] * 2
    logits = np.frombuffer(response.content[length:][:12], "<f4")
    assert relative_error(logits, COLOUR.logits(pixels, card().preprocessing)) < 1e-4
    assert_error(client.post(POOL, content=b"abcd", headers={LENGTH: "0"}), 400, "malformed", "more than 0")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("names", [None, ["probabilities", "logits"]], ids=["all", "two"])
def test_same_request_with_other_numbers_gets_other_answers(
    client: TestClient, rng: np.random.Generator, count: int, datatype: str, names: list[str] | None
) -> None:
    """What is remembered of a request is nothing of its numbers: five times the same JSON, and one more of another id."""
    answers = []
    for turn in range(6):
        pixels = rng.integers(0, 256, (count, 5, 4, 3), np.uint8)
        own = ((pixels / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.25]).transpose(0, 3, 1, 2).astype("<f4")
        numbers = np.ascontiguousarray(pixels if datatype == "UINT8" else own)
        given = {"name": "images", "shape": list(numbers.shape), "datatype": datatype}
        document: dict[str, Any] = {
            "id": "other" if turn == 5 else "same",
            "inputs": [{**given, "parameters": {"binary_data_size": numbers.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
        if names:
            document["outputs"] = [{"name": name} for name in names]
        response = client.post(INFER, **tail(document, numbers.tobytes()))
        length = int(response.headers[LENGTH])
        said = json.loads(response.content[:length])
        assert said["id"] == document["id"]
        answers.append(said["outputs"])
        found = np.frombuffer(response.content[length:], "<f4").reshape(2, count, 3)
        logits = found[[output["name"] for output in said["outputs"]].index("logits")]
        expected = np.stack([COLOUR.logits(image, card().preprocessing) for image in pixels])
        assert relative_error(logits, expected) < 1e-4
    assert all(answer == answers[0] for answer in answers)
    assert [output["name"] for output in answers[0]] == (names or ["logits", "probabilities"])


def test_pictures_in_json_are_base64_and_of_any_sizes(client: TestClient, rng: np.random.Generator) -> None:
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((3, 9), (40, 2), (8, 8))]
    data = [base64.b64encode(png(pixels)).decode() for pixels in pictures]
    expected = np.stack([COLOUR.logits(pixels, card().preprocessing) for pixels in pictures])
    for shape in ([3], [3, 1]):
        given = {"name": "image_bytes", "shape": shape, "datatype": "BYTES", "data": data}
        response = client.post(INFER, json={"inputs": [given]})
        assert relative_error(outputs(response)["logits"], expected) < 1e-4
        assert "decode;dur=" in response.headers["server-timing"]


def test_graphs_own_name_is_taken_too_and_half_precision_stays(
    make_client: MakeClient, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "half" / "2"
    folder.mkdir(parents=True)
    model = COLOUR.to_onnx(card(), dtype=onnx.TensorProto.FLOAT16)
    model.graph.input[0].name = model.graph.node[0].input[0] = "data_0"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    client = make_client(models=tmp_path)
    metadata = client.get("/v2/models/half").json()
    assert metadata["inputs"][2] == {"name": "data_0", "datatype": "FP16", "shape": [-1, 3, -1, -1]}
    assert [output["datatype"] for output in metadata["outputs"]] == ["FP16", "FP32"]
    pixels = rng.integers(0, 256, (2, 6, 5, 3), np.uint8)
    own = (pixels / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.25]
    given = {"shape": [2, 3, 6, 5], "datatype": "FP16", "data": own.transpose(0, 3, 1, 2).tolist()}
    expected = np.stack([COLOUR.logits(image, card().preprocessing) for image in pixels])
    for name in ("data_0", "images"):
        found = outputs(client.post("/v2/models/half/versions/2/infer", json={"inputs": [{"name": name, **given}]}))
        assert relative_error(found["logits"], expected) < 2e-2


def test_embedding_of_a_shipped_model(make_client: MakeClient, rng: np.random.Generator, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to(Path(__file__).parents[4] / "models" / "digits")
    client = make_client(models=tmp_path)
    pixels = rng.integers(0, 256, (2, 8, 8, 1), np.uint8)
    given = {"name": "images", "shape": [2, 8, 8, 1], "datatype": "UINT8", "parameters": {"binary_data_size": 128}}
    response = client.post("/v2/models/digits/infer", **tail({"inputs": [given]}, pixels.tobytes()))
    found = outputs(response)
    assert found["embedding"].shape == (2, 96)
    e = np.exp(found["logits"] - found["logits"].max(1, keepdims=True))
    assert relative_error(found["probabilities"], e / e.sum(1, keepdims=True)) < 1e-5


def test_large_tensors_take_the_way_of_threads(client: TestClient, rng: np.random.Generator) -> None:
    x = rng.normal(size=(40, 300, 200)).astype(np.float32)  # 9.6 MB
    given = {"name": "tensor", "shape": list(x.shape), "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    document = {"inputs": [given], "parameters": {"op": "avg", "kernel": 4, "binary_data_output": True}}
    asked = tail(document, x.tobytes())
    asked["headers"]["Accept-Encoding"] = "identity"
    response = client.post(POOL, **asked)
    length = int(response.headers[LENGTH])
    found = np.frombuffer(response.content[length:], "<f4").reshape(40, 75, 50)
    assert relative_error(found, x.reshape(40, 75, 4, 50, 4).astype(float).mean((2, 4))) < 1e-5
    nested = {"inputs": [{**given, "parameters": {}, "data": x[:4].round(3).tolist(), "shape": [4, 300, 200]}]}
    found = outputs(client.post(POOL, json={**nested, "parameters": {"op": "max", "kernel": 2}}))["tensor"]
    assert np.array_equal(found.astype(np.float32), x[:4].round(3).reshape(4, 150, 2, 100, 2).max((2, 4)))


def test_labels_stand_in_classes(client: TestClient, rng: np.random.Generator) -> None:
    document = {
        "inputs": [pixels_of([2, 4, 4, 3])],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 10**12}}],
    }
    (output,) = client.post(INFER, json=document).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    assert {text.split(":")[2] for text in output["data"]} == set(LABELS)

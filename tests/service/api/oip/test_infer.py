"""Inference by the protocol over HTTP: what models take and give, what is refused, and that a refusal leaves all well."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings
from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.tiny import LABELS, TinyClassifier, card

COLOUR, GREY = TinyClassifier.random(1), TinyClassifier.random(2, channels=1)
INFER = "/v2/models/colour/infer"
POOL = "/v2/models/pool/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    """One app for all tests here that need no settings of their own: that nothing is left behind is one of the claims."""
    settings = Settings.model_validate({"models": model_folder})
    with TestClient(create_app(settings, Repository.load(settings)), raise_server_exceptions=False) as made:
        yield made


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


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no input": (INFER, {"inputs": []}, "expected one of images, image_bytes, got 0"),
    "another input": (INFER, {"inputs": [pixels_of([1], name="x")]}, "takes images, image_bytes, got 'x'"),
    "both inputs": (
        INFER,
        {
            "inputs": [
                pixels_of([1, 1, 1, 3]),
                {"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": [""]},
            ]
        },
        "got 2 inputs",
    ),
    "another datatype": (INFER, {"inputs": [pixels_of([1, 1, 1, 3], "INT8")]}, "expected float32"),
    "strings as pixels": (
        INFER,
        {"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [""]}]},
        "expected datatype UINT8 or FP32, got BYTES",
    ),
    "numbers as strings": (
        INFER,
        {"inputs": [pixels_of([1], name="image_bytes")]},
        "expected datatype BYTES, got UINT8",
    ),
    "three sizes": (INFER, {"inputs": [pixels_of([1, 1, 3])]}, "expected a shape of 4 sizes"),
    "channels": (INFER, {"inputs": [pixels_of([1, 2, 2, 1])]}, "(H,W,3)"),
    "an empty batch": (INFER, {"inputs": [pixels_of([0, 2, 2, 3])]}, "none of them 0"),
    "no pictures": (
        INFER,
        {"inputs": [{"name": "image_bytes", "shape": [0], "datatype": "BYTES", "data": []}]},
        "N >= 1",
    ),
    "not base64": (
        INFER,
        {"inputs": [{"name": "image_bytes", "shape": [1], "datatype": "BYTES", "data": ["§"]}]},
        "image_bytes[0]: expected base64",
    ),
    "a negative timeout": (
        INFER,
        {"inputs": [pixels_of([1, 1, 1, 3])], "parameters": {"timeout": -1}},
        "parameters.timeout: expected an integer >= 0",
    ),
    "sequence_start 1": (
        INFER,
        {"inputs": [pixels_of([1, 1, 1, 3])], "parameters": {"sequence_start": 1}},
        "expected true or false",
    ),
    "pool without a tensor": (POOL, {"inputs": [], "parameters": {"op": "max"}}, "expected tensor, got none"),
    "pool without op": (POOL, {"inputs": [pixels_of([4], name="tensor")]}, "op: expected the name"),
    "pool of strings": (
        POOL,
        {"inputs": [{"name": "tensor", "shape": [1], "datatype": "BYTES", "data": [""]}], "parameters": {"op": "max"}},
        "expected numbers, got BYTES",
    ),
    "pool of booleans": (
        POOL,
        {"inputs": [{"name": "tensor", "shape": [1], "datatype": "BOOL", "data": [True]}], "parameters": {"op": "max"}},
        "expected numbers, got BOOL",
    ),
    "indices that were not asked for": (
        POOL,
        {"inputs": [pixels_of([4], name="tensor")], "parameters": {"op": "max"}, "outputs": [{"name": "indices"}]},
        "return_indices=true",
    ),
}
WINDOWS: dict[str, dict[str, Any]] = {
    "kernel 10^9": {"kernel": 10**9},
    "kernel 0": {"kernel": 0},
    "stride 0": {"kernel": 2, "stride": 0},
    "stride -1": {"kernel": 2, "stride": -1},
    "padding beyond the window": {"kernel": 2, "padding": 9},
    "dilation 2^62": {"kernel": 2, "dilation": 2**62},
    "p 0": {"op": "gem", "p": 0},
    "p NaN": {"op": "gem", "p": "nan"},
    "an unknown parameter": {"colour": 3},
    "an unknown operator": {"op": "nope"},
}
for name, parameters in WINDOWS.items():
    window = {"inputs": [pixels_of([1, 4, 4], "FP32", "tensor")], "parameters": {"op": "max", **parameters}}
    REFUSED[name] = (POOL, window, "expected" if "unknown" not in name else "")


@pytest.mark.parametrize(("path", "document", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_422_elsewhere_is_400_here(client: TestClient, path: str, document: dict[str, Any], says: str) -> None:
    response = client.post(path, json=document)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error", "code", "request_id"}
    assert says in response.json()["error"] or says == "expected"
    assert_healthy(client)


def test_picture_that_is_none_is_named(client: TestClient) -> None:
    good = png(np.zeros((20, 20, 3), np.uint8))
    for bad, status, code in ((b"hello", 415, "unsupported_media_type"), (good[:-40], 400, "invalid_image")):
        given = {"name": "image_bytes", "shape": [2], "datatype": "BYTES"}
        data = [base64.b64encode(one).decode() for one in (good, bad)]
        assert_error(client.post(INFER, json={"inputs": [{**given, "data": data}]}), status, code, "images[1]")
    assert_healthy(client)


def test_output_grid_too_large_is_413(client: TestClient) -> None:
    document = {"inputs": [pixels_of([4, 4], "FP32", "tensor")], "parameters": {"op": "max", "output_size": 10**9}}
    assert client.post(POOL, json=document).status_code in {400, 413}
    assert_healthy(client)


@pytest.mark.parametrize(
    "value",
    ["-1", "+5", "12abc", "1e3", "\u0663".encode(), str(2**31), str(2**63), "1" + "0" * 400, "", " ", "0x10", "1_0"],
)
def test_header_lengths_that_are_none(client: TestClient, value: str | bytes) -> None:
    content = json.dumps({"inputs": [pixels_of([1, 3, 3, 3])]}).encode()
    response = client.post(INFER, content=content, headers={LENGTH: value})  # type: ignore[dict-item]
    assert_error(response, 400, "malformed", LENGTH)
    assert_healthy(client)


def test_header_length_twice_or_within_the_json(client: TestClient) -> None:
    content = json.dumps({"inputs": [pixels_of([1, 3, 3, 3])]}).encode()
    for lengths in ([len(content)] * 2, [len(content) // 2], [len(content) + 1]):
        response = client.post(INFER, content=content, headers=[(LENGTH, str(length)) for length in lengths])
        assert_error(response, 400, "malformed")
    assert_healthy(client)


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


def test_limits_of_images(make_client: MakeClient) -> None:
    client = make_client(max_images=2, max_pixels=100)
    assert_error(client.post(INFER, json={"inputs": [pixels_of([3, 1, 1, 3])]}), 413, "payload_too_large", "2 images")
    assert_error(
        client.post(INFER, json={"inputs": [pixels_of([1, 11, 10, 3])]}), 413, "payload_too_large", "100 pixels"
    )
    many = {"name": "image_bytes", "shape": [3], "datatype": "BYTES", "data": [""] * 3}
    assert_error(client.post(INFER, json={"inputs": [many]}), 413, "payload_too_large", "at most 2")


def test_timeout_is_kept(client: TestClient) -> None:
    document = {"inputs": [pixels_of([1, 3, 3, 3])], "parameters": {"timeout": 1}}
    assert_error(client.post(INFER, json=document), 504, "timeout")
    tensor = {"inputs": [pixels_of([8], "FP32", "tensor")], "parameters": {"op": "max", "timeout": 1}}
    assert_error(client.post(POOL, json=tensor), 504, "timeout")
    assert client.post(INFER, json={**document, "parameters": {"timeout": 0}}).status_code == 200
    assert_error(client.post(INFER, json=document, headers={"X-Request-Timeout": "soon"}), 400, "invalid_parameter")


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


NAMES = ["../colour", "%2e%2e%2fcolour", "colour%00", "c" * 10_000, "сolour", "colour%2f..", " colour", "%ff%fe"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_no_model(client: TestClient, name: str) -> None:
    response = client.post(f"/v2/models/{name}/infer", json={"inputs": [pixels_of([1, 3, 3, 3])]})
    assert response.status_code == 404
    assert set(response.json()) == {"error", "code", "request_id"}
    assert_healthy(client)


def test_labels_stand_in_classes(client: TestClient, rng: np.random.Generator) -> None:
    document = {
        "inputs": [pixels_of([2, 4, 4, 3])],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 10**12}}],
    }
    (output,) = client.post(INFER, json=document).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    assert {text.split(":")[2] for text in output["data"]} == set(LABELS)

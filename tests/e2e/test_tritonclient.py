"""Triton's own client, synchronous and asyncio, against a server: every call it has that applies here."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.claims import relative_error
from tests.e2e.server import ROOT, Server, serve
from tests.e2e.triton_clients import Client, opened, tensor, wanted
from tests.tiny import LABELS, TinyClassifier, card

COLOUR, GREY = TinyClassifier.random(1), TinyClassifier.random(2, channels=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("models")
    COLOUR.save(folder / "colour" / "1", card())
    GREY.save(folder / "grey" / "3", card("L"))
    shutil.copytree(ROOT / "models" / "digits", folder / "digits")
    with serve(folder / "server.log", "--models", str(folder)) as running:
        yield running


@pytest.fixture(params=["sync", "asyncio"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with opened(request.param, f"127.0.0.1:{server.port}") as made:
        yield made


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def test_health_and_metadata(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colour")
    assert client.is_model_ready("grey", "3")
    assert not client.is_model_ready("grey", "1")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert server["name"] == "poolserve"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    assert client.get_model_metadata("digits", "1") == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 1]},
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "embedding", "datatype": "FP32", "shape": [-1, 96]},
        ],
    }


def test_configuration_fits_the_metadata(client: Client) -> None:
    for name in ("colour", "digits", "pool"):
        metadata, configuration = client.get_model_metadata(name), client.get_model_config(name)
        assert configuration["backend"] == "onnxruntime"
        batched = configuration["max_batch_size"] > 0
        for said, configured in zip(
            metadata["inputs"] + metadata["outputs"], configuration["input"] + configuration["output"], strict=True
        ):
            assert said["name"] == configured["name"]
            assert configured["data_type"].removeprefix("TYPE_") in {said["datatype"], "STRING"}
            assert configured["dims"] == (said["shape"][1:] or [1] if batched else said["shape"])


def test_repository_index_and_no_loading(client: Client) -> None:
    index = client.get_model_repository_index()
    assert {(entry["name"], entry["version"], entry["state"]) for entry in index} == {
        ("colour", "1", "READY"),
        ("grey", "3", "READY"),
        ("digits", "1", "READY"),
        ("pool", "1", "READY"),
    }
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="model control is none") as refused:
            call("colour")
        assert refused.value.status() == "403"


@pytest.mark.parametrize("binary_in", [True, False], ids=["bytes in", "JSON in"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["bytes out", "JSON out"])
def test_pixels(client: Client, rng: np.random.Generator, binary_in: bool, binary_out: bool) -> None:
    pixels = rng.integers(0, 256, (3, 9, 7, 3), np.uint8)
    expected = np.stack([COLOUR.logits(image, card().preprocessing) for image in pixels])
    outputs = [wanted("probabilities", binary=binary_out), wanted("logits", binary=binary_out)]
    result = client.infer(
        "colour",
        [tensor("images", pixels, binary=binary_in)],
        model_version="1",
        outputs=outputs,
        request_id="mine; ünïcode",
    )
    said = result.get_response()
    assert (said["id"], said["model_name"], said["model_version"]) == ("mine; ünïcode", "colour", "1")
    assert [output["name"] for output in said["outputs"]] == ["probabilities", "logits"]
    assert relative_error(result.as_numpy("logits"), expected) < 1e-4
    assert relative_error(result.as_numpy("probabilities"), softmax(expected)) < 1e-3


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_the_networks_own_input(client: Client, rng: np.random.Generator, binary: bool) -> None:
    pixels = rng.integers(0, 256, (2, 6, 5, 1), np.uint8)
    own = ((pixels / 255.0 - 0.4) / 0.2).transpose(0, 3, 1, 2).astype(np.float32)
    expected = np.stack([GREY.logits(image, card("L").preprocessing) for image in pixels])
    result = client.infer("grey", [tensor("images", own, binary=binary)])
    assert relative_error(result.as_numpy("logits"), expected) < 1e-4


def test_pictures_of_many_sizes_are_as_v1_has_them(client: Client, server: Server, rng: np.random.Generator) -> None:
    sizes = [(8, 8), (31, 17), (5, 40)]
    pictures = [png(rng.integers(0, 256, (*size, 1), np.uint8)) for size in sizes]
    result = client.infer("digits", [tensor("image_bytes", np.array(pictures, object))])
    assert result.as_numpy("embedding").shape == (3, 96)
    form = [("image", ("a.png", picture)) for picture in pictures]
    native = httpx2.post(server.url + "/v1/classify?model=digits&top=10", files=form).json()["results"]
    for got, page in zip(result.as_numpy("probabilities"), native, strict=True):
        expected = {one["index"]: one["probability"] for one in page["predictions"]}
        assert relative_error(got, np.array([expected[index] for index in range(10)])) < 1e-5


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
def test_classification(client: Client, rng: np.random.Generator, binary: bool) -> None:
    pixels = rng.integers(0, 256, (2, 9, 7, 3), np.uint8)
    outputs = [wanted("logits", binary=binary, classes=2), wanted("probabilities", binary=binary, classes=99)]
    result = client.infer("colour", [tensor("images", pixels)], outputs=outputs)
    assert result.as_numpy("probabilities").shape == (2, 3)
    best = result.as_numpy("logits")
    assert best.shape == (2, 2)
    for image, strings in zip(pixels, best, strict=True):
        logits = COLOUR.logits(image, card().preprocessing)
        for place, index in enumerate(np.argsort(-logits)[:2]):
            text = strings[place].decode() if isinstance(strings[place], bytes) else strings[place]
            value, number, label = text.split(":")
            assert (int(number), label) == (index, LABELS[index])
            assert len(value.partition(".")[2]) == 6
            assert abs(float(value) - logits[index]) < 1e-3 * max(1, abs(logits[index]))


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
)
def test_pool_in_every_datatype(client: Client, rng: np.random.Generator, dtype: str, binary: bool) -> None:
    limits = np.finfo(dtype) if dtype.startswith("f") else np.iinfo(dtype)
    x = rng.normal(size=(2, 3, 8, 6)).astype(dtype) if dtype.startswith("f") else None
    if x is None:
        x = rng.integers(limits.min, limits.max, (2, 3, 8, 6), dtype, endpoint=True)
    result = client.infer(
        "pool",
        [tensor("tensor", x, binary=binary)],
        outputs=[wanted("tensor", binary=binary)],
        parameters={"op": "max", "kernel": "2,3"},
    )
    got = result.as_numpy("tensor")
    assert got.dtype == x.dtype
    assert np.array_equal(got, x.reshape(2, 3, 4, 2, 2, 3).max((3, 5)))


def test_pool_with_a_mask_and_indices(client: Client, rng: np.random.Generator) -> None:
    x, mask = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.random((4, 5)) < 0.5
    mask[0, 0] = True
    parameters: dict[str, Any] = {"op": "max", "return_indices": True}
    result = client.infer("pool", [tensor("tensor", x), tensor("mask", mask)], parameters=parameters)
    kept = np.where(mask, x, -np.inf).reshape(3, -1)
    assert np.array_equal(result.as_numpy("tensor").reshape(3), kept.max(-1))
    assert np.array_equal(result.as_numpy("indices").reshape(3), kept.argmax(-1))


def test_empty_tensors(client: Client) -> None:
    x = np.zeros((0, 4, 4), np.float32)
    result = client.infer("pool", [tensor("tensor", x)], parameters={"op": "max", "kernel": 2})
    assert result.as_numpy("tensor").shape == (0, 2, 2)


@pytest.mark.parametrize("request_encoding", ["gzip", "deflate", None])
@pytest.mark.parametrize("response_encoding", ["gzip", "deflate", None])
def test_compression(
    client: Client, rng: np.random.Generator, request_encoding: str | None, response_encoding: str | None
) -> None:
    x = rng.integers(0, 3, (4, 64, 64)).astype(np.float32)
    result = client.infer(
        "pool",
        [tensor("tensor", x)],
        parameters={"op": "avg", "kernel": 2},
        request_compression_algorithm=request_encoding,
        response_compression_algorithm=response_encoding,
    )
    assert relative_error(result.as_numpy("tensor"), x.reshape(4, 32, 2, 32, 2).mean((2, 4))) < 1e-6


def test_statistics_count_samples_and_requests(client: Client, rng: np.random.Generator) -> None:
    def page() -> dict[str, Any]:
        (found,) = client.get_inference_statistics("grey", "3")["model_stats"]
        return dict(found)

    before = page()
    for count in (1, 4, 2):
        client.infer("grey", [tensor("images", rng.integers(0, 256, (count, 8, 8, 1), np.uint8))])
    with pytest.raises(InferenceServerException):
        client.infer("grey", [tensor("images", np.zeros((1, 8, 8, 2), np.uint8))])
    after = page()
    assert after["inference_count"] - before["inference_count"] == 7
    assert 3 <= after["execution_count"] - before["execution_count"] <= 7
    for name, count in (("success", 3), ("fail", 1), ("compute_infer", 3), ("queue", 3)):
        assert after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"] == count
        assert after["inference_stats"][name]["ns"] > before["inference_stats"][name]["ns"]
    assert sum(batch["compute_infer"]["count"] for batch in after["batch_stats"]) == after["execution_count"]
    assert after["last_inference"] > before["last_inference"]
    everything = client.get_inference_statistics()["model_stats"]
    assert {one["name"] for one in everything} == {"colour", "grey", "digits", "pool"}


def test_parameters_of_the_protocol_are_taken(client: Client) -> None:
    x = np.array([[1, 3], [5, 2]], np.float32)
    result = client.infer(
        "pool",
        [tensor("tensor", x)],
        sequence_id=7,
        sequence_start=True,
        priority=1,
        timeout=10_000_000,
        parameters={"op": "max"},
    )
    assert result.as_numpy("tensor").item() == 5


ERRORS = {
    "unknown model": ("nobody", {}, "404", "no such model"),
    "unknown version": ("colour", {"model_version": "9"}, "404", "no such version"),
    "unknown output": ("colour", {"outputs": [wanted("scores")]}, "400", "logits, probabilities, got 'scores'"),
    "unknown parameter": ("colour", {"parameters": {"top": 3}}, "400", "has none, got 'top'"),
}


@pytest.mark.parametrize(("model", "arguments", "status", "says"), ERRORS.values(), ids=ERRORS)
def test_errors_are_exceptions_with_words(
    client: Client, model: str, arguments: dict[str, Any], status: str, says: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor("images", np.zeros((1, 4, 4, 3), np.uint8))], **arguments)
    assert caught.value.status() == status
    assert says in caught.value.message()


def test_many_requests_at_once_get_their_own_answers(server: Server, rng: np.random.Generator) -> None:
    arrays = [rng.integers(0, 256, (1, 3 + place % 5, 8, 3), np.uint8) for place in range(40)]
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=8) as client:
        waiting = [client.async_infer("colour", [tensor("images", array)]) for array in arrays]
        for array, one in zip(arrays, waiting, strict=True):
            expected = COLOUR.logits(array[0], card().preprocessing)
            assert relative_error(one.get_result().as_numpy("logits")[0], expected) < 1e-4

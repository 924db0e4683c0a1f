"""A repository that was made for Triton, unchanged, served by `python -m service` to Triton's own client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.claims import relative_error
from tests.e2e.server import Server, serve
from tests.triton import LABELS, Net, write_densenet, write_resnet

DENSE = Net.random(np.random.default_rng(1))
VERSIONS = {version: Net.random(np.random.default_rng(int(version))) for version in "123"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("repository")
    write_densenet(folder, DENSE)
    write_resnet(folder, VERSIONS)
    with serve(tmp_path_factory.mktemp("log") / "server.log", "--models", str(folder)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as made:
        yield made


def tensor(name: str, array: np.ndarray, datatype: str = "FP32", *, binary: bool = True) -> triton.InferInput:
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


def best(logits: np.ndarray, count: int) -> list[tuple[int, str]]:
    return [(int(index), LABELS[index]) for index in np.argsort(-logits)[:count]]


def parsed(strings: np.ndarray) -> list[tuple[int, str]]:
    split = [(text.decode() if isinstance(text, bytes) else text).split(":") for text in strings]
    return [(int(index), label) for _, index, label in split]


def test_metadata_is_what_the_configuration_says(client: triton.InferenceServerClient) -> None:
    assert client.get_model_metadata("densenet_onnx") == {
        "name": "densenet_onnx",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "data_0", "datatype": "FP32", "shape": [3, 32, 32]}],
        "outputs": [{"name": "fc6_1", "datatype": "FP32", "shape": [5]}],
    }
    assert client.get_model_metadata("resnet") == {
        "name": "resnet",
        "versions": ["1", "3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 5]}],
    }


def test_configuration_is_that_of_the_file(client: triton.InferenceServerClient) -> None:
    def of(name: str) -> dict[str, Any]:
        said: dict[str, Any] = client.get_model_config(name)
        return said

    dense, resnet = of("densenet_onnx"), of("resnet")
    assert dense["max_batch_size"] == 0
    assert resnet["max_batch_size"] == 8
    assert resnet["version_policy"] == {"specific": {"versions": [1, 3]}}
    assert resnet["default_model_filename"] == "resnet50.onnx"
    (given,), (made,) = dense["input"], dense["output"]
    assert (given["name"], given["data_type"], given["format"]) == ("data_0", "TYPE_FP32", "FORMAT_NCHW")
    assert given["dims"] == [3, 32, 32]
    assert (made["name"], made["dims"], made["label_filename"]) == ("fc6_1", [5], "densenet_labels.txt")
    assert resnet["output"][0]["label_filename"] == "labels/imagenet.txt"


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "unasked"])
def test_quick_starts_request_without_a_batch_axis(
    client: triton.InferenceServerClient, rng: np.random.Generator, binary: bool, named: bool
) -> None:
    outputs = [triton.InferRequestedOutput("fc6_1", binary_data=binary)] if named else None
    for _ in range(3):  # the second and third are remembered
        x = rng.normal(size=(3, 32, 32)).astype(np.float32)
        result = client.infer("densenet_onnx", [tensor("data_0", x, binary=binary)], outputs=outputs)
        assert [output["name"] for output in result.get_response()["outputs"]] == ["fc6_1"]
        got = result.as_numpy("fc6_1")
        assert got.shape == (5,)
        assert relative_error(got, DENSE.logits(x)) < 1e-4


def test_classification_without_a_batch_axis(client: triton.InferenceServerClient, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 32, 32)).astype(np.float32)
    wanted = [triton.InferRequestedOutput("fc6_1", class_count=3)]
    strings = client.infer("densenet_onnx", [tensor("data_0", x)], outputs=wanted).as_numpy("fc6_1")
    assert strings.shape == (3,)
    assert parsed(strings) == best(DENSE.logits(x), 3)


@pytest.mark.parametrize("version", ["1", "3", ""])
def test_versions_of_the_policy_answer_each_for_itself(
    client: triton.InferenceServerClient, rng: np.random.Generator, version: str
) -> None:
    x = rng.normal(size=(4, 3, 24, 17)).astype(np.float32)
    expected = np.stack([VERSIONS[version or "3"].logits(one) for one in x])
    result = client.infer("resnet", [tensor("input", x)], model_version=version)
    assert result.get_response()["model_version"] == (version or "3")
    assert relative_error(result.as_numpy("output"), expected) < 1e-4
    wanted = [triton.InferRequestedOutput("output", class_count=2)]
    strings = client.infer("resnet", [tensor("input", x)], model_version=version, outputs=wanted).as_numpy("output")
    assert strings.shape == (4, 2)
    assert [parsed(row) for row in strings] == [best(row, 2) for row in expected]


def test_version_outside_of_the_policy_is_not_served(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("resnet", "1")
    assert not client.is_model_ready("resnet", "2")
    with pytest.raises(InferenceServerException, match="no such version; loaded is: 3, 1"):
        client.infer("resnet", [tensor("input", np.zeros((1, 3, 8, 8), np.float32))], model_version="2")
    index = {(row["name"], row["version"], row["state"]) for row in client.get_model_repository_index()}
    assert {("densenet_onnx", "1", "READY"), ("resnet", "1", "READY"), ("resnet", "3", "READY")} <= index
    assert not any(name == "resnet" and version == "2" for name, version, _ in index)


def test_more_samples_than_max_batch_size_run_in_turn(
    client: triton.InferenceServerClient, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(19, 3, 8, 8)).astype(np.float32)
    got = client.infer("resnet", [tensor("input", x)], model_version="1").as_numpy("output")
    assert relative_error(got, np.stack([VERSIONS["1"].logits(one) for one in x])) < 1e-4


def test_pictures_go_too_scaled_to_one(client: triton.InferenceServerClient, rng: np.random.Generator) -> None:
    """What no Triton does: encoded pictures of any size, and the outputs by their names here."""
    pixels = rng.integers(0, 256, (13, 29, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    picture = tensor("image_bytes", np.array([stream.getvalue()], object), "BYTES")
    outputs = [triton.InferRequestedOutput(name) for name in ("probabilities", "output", "logits")]
    result = client.infer("resnet", [picture], outputs=outputs)
    logits = VERSIONS["3"].logits(pixels.transpose(2, 0, 1) / 255)
    assert relative_error(result.as_numpy("output")[0], logits) < 1e-4
    assert np.array_equal(result.as_numpy("output"), result.as_numpy("logits"))
    e = np.exp(logits - logits.max())
    assert relative_error(result.as_numpy("probabilities")[0], e / e.sum()) < 1e-3


@pytest.mark.parametrize(
    ("model", "name", "shape", "says"),
    [
        ("densenet_onnx", "data_0", (3, 32), "expected a shape of 3 sizes, or 4 with the batch first"),
        ("densenet_onnx", "data_0", (1, 32, 32), "expected (3,H,W)"),
        ("densenet_onnx", "input", (3, 32, 32), "takes images, image_bytes, data_0"),
        ("resnet", "input", (3, 32, 32), "expected a shape of 4 sizes, the first of them of the batch"),
    ],
)
def test_other_shapes_and_names_are_refused(
    client: triton.InferenceServerClient, model: str, name: str, shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(name, np.zeros(shape, np.float32))])
    assert caught.value.status() == "400"
    assert says in caught.value.message()


def test_warning_says_what_pictures_become(server: Server) -> None:
    text = server.log.read_text()
    assert text.count("model densenet_onnx: has no card; by its config.pbtxt it takes RGB in layout NCHW") == 1

"""POST /v1/heatmap in-process: maps are what the weights say, lie where the cells look, and every mistake has its own error."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from starlette.testclient import TestClient

from export.network import Network
from service.app import create_app
from service.codecs.heat import COLOURS
from service.codecs.images import decode
from service.runtime.repository import Repository
from service.settings import Settings
from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.service.api.colour import GOOD
from tests.service.api.exported import LABELS, make, png, tensor

ROOT = Path(__file__).parents[3]
BOUND = 1e-5
"""Relative to the map's largest number; float32 features and a float32 product of 6 or 96 channels."""

SIZES = [(1, 1), (1, 9), (5, 3), (33, 71), (64, 50)]
JSON = {"Accept": "application/json"}
NPY = {"Accept": "application/x-npy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "digits-gap", made / "digits")
    return made


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, Network]:
    return make(folder, "gap", "gmp", "gem", "lse", "attention")


@pytest.fixture(scope="module")
def client(folder: Path, networks: dict[str, Network]) -> Iterator[TestClient]:
    settings = Settings(models=folder)
    with TestClient(create_app(settings, Repository.load(settings)), raise_server_exceptions=False) as made:
        yield made


def picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), np.uint8)


def pieces(network: Network, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features (C,h,w), logits (K,), classifier's weight (K,C) and bias (K,), float64."""
    with torch.no_grad():
        features, logits = network.forward_features(tensor(pixels)), network(tensor(pixels))[0]
    weight, bias = network.classifier.weight.detach(), network.classifier.bias.detach()
    return (
        features[0].double().numpy(),
        logits[0].double().numpy(),
        weight.double().numpy(),
        bias.double().numpy(),
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "×".join(map(str, size)))
def test_map_of_an_average_is_the_weights_times_the_features(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator, size: tuple[int, int]
) -> None:
    pixels = picture(rng, size)
    features, logits, weight, bias = pieces(networks["gap"], pixels)
    for k in range(4):
        response = client.post(f"/v1/heatmap?model=gap&class={k}", content=png(pixels), headers=JSON)
        (result,) = response.json()["results"]
        expected = np.einsum("c,chw->hw", weight[k], features) + bias[k]
        # Of what is added, not of the sum: in a map of one cell it may all but cancel.
        added = np.einsum("c,chw->hw", np.abs(weight[k]), np.abs(features)) + abs(bias[k])
        assert np.abs(np.array(result["map"]) - expected).max() <= BOUND * added.max()
        assert abs(np.mean(result["map"]) - logits[k]) <= BOUND * max(1, np.abs(expected).max())
        assert abs(result["class"]["score"] - logits[k]) <= BOUND * max(1, np.abs(logits).max())
        assert (result["class"]["index"], result["class"]["label"]) == (k, LABELS[k])
        assert (result["height"], result["width"]) == size
        assert (result["first"], result["step"]) == ([0.0, 0.0], [2, 2])


def test_map_of_the_shipped_model_is_its_files_weights_times_its_features(client: TestClient) -> None:
    data = (ROOT / "docs" / "pictures" / "digit-640x480.jpg").read_bytes()
    model = onnx.load(ROOT / "models" / "digits-gap" / "1" / "model.onnx")
    weights = {one.name: numpy_helper.to_array(one).astype(np.float64) for one in model.graph.initializer}
    (gemm,) = (node for node in model.graph.node if node.op_type == "Gemm")
    weight, bias = weights[gemm.input[1]], weights[gemm.input[2]]
    model.graph.output.append(onnx.ValueInfoProto(name="maximum_2"))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = decode(data, channels="L", max_pixels=10**6).transpose(2, 0, 1)[None]
    x = (pixels / np.float32(255) - 0.5) / np.float32(0.5)
    features, logits = session.run(["maximum_2", "logits"], {"images": x})
    (result,) = client.post("/v1/heatmap?model=digits", content=data, headers=JSON).json()["results"]
    k = result["class"]["index"]
    assert k == int(logits[0].argmax())
    assert relative_error(np.array(result["map"]), np.einsum("c,chw->hw", weight[k], features[0]) + bias[k]) <= BOUND


@pytest.mark.parametrize("model", ["gmp", "gem", "lse"])
def test_evidence_of_a_cell_is_what_the_head_makes_of_it_alone(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator, model: str
) -> None:
    pixels = picture(rng, (19, 33))
    network = networks[model]
    with torch.no_grad():
        features = network.forward_features(tensor(pixels))  # (1,6,10,17)
        alone = network.forward_head(features[0].flatten(1).T[:, :, None, None])  # (170,4)
    response = client.post(f"/v1/heatmap?model={model}&class=dog", content=png(pixels), headers=JSON)
    assert relative_error(np.array(response.json()["results"][0]["map"]), alone[:, 3].reshape(10, 17).numpy()) <= BOUND


def test_attentions_map_has_its_weights_and_the_score_as_mean(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator
) -> None:
    pixels = picture(rng, (25, 12))
    network = networks["attention"]
    features, logits, weight, bias = pieces(network, pixels)
    with torch.no_grad():
        attention = network.head.attention_map(torch.from_numpy(features[None]).float())  # type: ignore[operator]
    shares = attention[0, 0].double().numpy() * features[0].size
    for k in range(4):
        response = client.post(f"/v1/heatmap?model=attention&class={k}", content=png(pixels), headers=JSON)
        (result,) = response.json()["results"]
        expected = bias[k] + shares * np.einsum("c,chw->hw", weight[k], features)
        assert relative_error(np.array(result["map"]), expected) <= BOUND
        assert abs(np.mean(result["map"]) - logits[k]) <= BOUND * max(1, np.abs(expected).max())


def test_class_is_the_most_probable_by_default_or_named_by_label(client: TestClient, rng: np.random.Generator) -> None:
    for size in SIZES:
        data = png(picture(rng, size))
        best = client.post("/v1/classify?model=lse&top=1", content=data).json()["results"][0]["predictions"][0]
        shown = client.post("/v1/heatmap?model=lse", content=data, headers=JSON).json()["results"][0]["class"]
        assert (shown["index"], shown["label"]) == (best["index"], best["label"])
        assert abs(shown["probability"] - best["probability"]) <= 1e-6
        by_label = client.post(f"/v1/heatmap?model=lse&class={best['label']}", content=data, headers=JSON)
        assert by_label.json()["results"][0]["class"] == shown


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "×".join(map(str, size)))
def test_numbers_on_pixels_are_bilinear_between_the_middles_of_cells(
    client: TestClient, rng: np.random.Generator, size: tuple[int, int]
) -> None:
    """A 3×3 convolution with stride 2 and padding 1 looks at pixels −1, 0, 1 first: its cells' middles are pixels 0, 2, 4 …"""
    data = png(picture(rng, size))
    (result,) = client.post("/v1/heatmap?model=gap&class=1", content=data, headers=JSON).json()["results"]
    cells = np.array(result["map"])
    response = client.post("/v1/heatmap?model=gap&class=1", content=data, headers=NPY)
    heat = np.load(io.BytesIO(response.content))
    assert (heat.shape, heat.dtype) == (size, np.float32)
    assert relative_error(heat[::2, ::2], cells) <= 1e-6
    by_columns = np.stack([np.interp(np.arange(size[1]), np.arange(cells.shape[1]) * 2, row) for row in cells])
    expected = np.stack([np.interp(np.arange(size[0]), np.arange(cells.shape[0]) * 2, row) for row in by_columns.T]).T
    assert relative_error(heat, expected) <= 1e-6
    raw = client.post("/v1/heatmap?model=gap&class=1&upsample=false", content=data, headers=NPY)
    assert relative_error(np.load(io.BytesIO(raw.content)), cells) <= 1e-7
    (spread,) = client.post("/v1/heatmap?model=gap&class=1&upsample=true", content=data, headers=JSON).json()["results"]
    assert relative_error(np.array(spread["map"]), heat) <= 1e-7
    assert (spread["first"], spread["step"]) == ([0.0, 0.0], [1, 1])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_picture_is_the_map_in_colours_over_the_image(
    client: TestClient, rng: np.random.Generator, alpha: float
) -> None:
    pixels = picture(rng, (37, 52))
    heat = np.load(io.BytesIO(client.post("/v1/heatmap?model=gem", content=png(pixels), headers=NPY).content))
    response = client.post(f"/v1/heatmap?model=gem&alpha={alpha}", content=png(pixels))
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as shown:
        got = np.asarray(shown.convert("RGB")).astype(np.float64)
    exact = heat.astype(np.float64)  # a range in float32 moves a level that lies on a half to the other side
    level = (exact - exact.min()) / (exact.max() - exact.min()) * 255
    # A pixel midway between the map's lowest and highest cell lies on 127.5: either colour is the nearest.
    nearest = [COLOURS[np.rint(level + off).astype(int)] for off in (-1e-9, 1e-9)]
    away = [np.abs(got - ((1 - alpha) * pixels + alpha * colour)).max(axis=2) for colour in nearest]
    assert np.minimum(*away).max() <= 0.5 + 1e-9
    brightest = np.unravel_index(heat.argmax(), heat.shape)
    if alpha == 1:
        assert got[brightest].tolist() == COLOURS[255].tolist()


def test_grey_pictures_and_level_maps_are_shown_too(client: TestClient) -> None:
    data = png(np.full((8, 8, 1), 77, np.uint8))
    with Image.open(io.BytesIO(client.post("/v1/heatmap?model=digits&alpha=0.5", content=data).content)) as shown:
        colours = np.asarray(shown.convert("RGB"))
    assert colours.shape == (8, 8, 3)
    assert np.abs(colours - (77 + COLOURS[0].astype(float)) / 2).max() <= 0.5  # one cell: all of it the lowest


def test_json_takes_several_images_and_parameters(client: TestClient, rng: np.random.Generator) -> None:
    pictures = [picture(rng, size) for size in SIZES]
    images = [base64.b64encode(png(pixels)).decode() for pixels in pictures]
    body = {"images": images, "model": "gap", "class": 2}
    document = client.post("/v1/heatmap", json=body, headers=JSON).json()
    assert (document["model"], document["version"]) == ("gap", "1")
    assert [(one["height"], one["width"]) for one in document["results"]] == SIZES
    for one, pixels in zip(document["results"], pictures, strict=True):
        alone = client.post("/v1/heatmap?model=gap&class=2", content=png(pixels), headers=JSON).json()["results"][0]
        assert relative_error(np.array(one["map"]), np.array(alone["map"])) <= 1e-6


BAD = {
    "no such class": ("class=cow", "class: expected an index below 4 or a label", "the nearest labels are"),
    "index too large": ("class=4", "class: expected an index from 0 to 3, got 4"),
    "negative index": ("class=-1", "class: expected an index from 0 to 3, got -1"),
    "huge index": ("class=" + "9" * 100, "class: expected an index from 0 to 3, got 9999"),
    "opaque": ("alpha=1.5", "alpha: "),
    "not a number": ("alpha=nan", "alpha: "),
    "cells in a picture": ("upsample=false", "upsample: expected true for image/png"),
    "unknown": ("klass=1", "unknown parameter 'klass'; known are:", "class, alpha, upsample"),
}


@pytest.mark.parametrize(("query", "says"), [(one[0], one[1:]) for one in BAD.values()], ids=BAD)
def test_bad_parameter_is_a_clear_422(client: TestClient, query: str, says: tuple[str, ...]) -> None:
    assert_error(client.post(f"/v1/heatmap?model=gap&{query}", content=GOOD), 422, "invalid_parameter", *says)


def test_other_errors_are_those_of_every_image_request(client: TestClient) -> None:
    assert_error(client.post("/v1/heatmap?model=gap", content=GOOD[:50]), 422, "invalid_image")
    assert_error(client.post("/v1/heatmap?model=gap", content=b"hello"), 415, "unsupported_media_type")
    assert_error(client.post("/v1/heatmap?model=nope", content=GOOD), 404, "model_not_found")
    files = [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD))]
    response = client.post("/v1/heatmap?model=gap", files=files)
    assert_error(response, 422, "invalid_parameter", "expected one image for image/png, got 2")
    response = client.post("/v1/heatmap?model=gap", content=GOOD, headers={"Accept": "text/html"})
    assert_error(response, 406, "not_acceptable", "image/png, application/x-npy, application/json")
    body = {"images": [base64.b64encode(GOOD).decode()], "class": 1}
    response = client.post("/v1/heatmap?model=gap&class=1", json=body)
    assert_error(response, 422, "invalid_parameter", "'class' is given in the query and in the body")
    headers = {"X-Request-Timeout": "1e-9"}
    assert_error(client.post("/v1/heatmap?model=gap", content=GOOD, headers=headers), 504, "timeout")
    assert client.post("/v1/heatmap?model=gap", content=GOOD).status_code == 200


def test_pictures_in_tiles_have_the_cells_of_the_whole(
    client: TestClient, folder: Path, networks: dict[str, Network], rng: np.random.Generator
) -> None:
    data = png(picture(rng, (67, 93)))
    settings = Settings(models=folder, max_canvas_pixels=1024)
    with TestClient(create_app(settings, Repository.load(settings)), raise_server_exceptions=False) as tiling:
        for model in networks:
            (got,) = tiling.post(f"/v1/heatmap?model={model}&class=1", content=data, headers=JSON).json()["results"]
            (whole,) = client.post(f"/v1/heatmap?model={model}&class=1", content=data, headers=JSON).json()["results"]
            assert relative_error(np.array(got.pop("map")), np.array(whole.pop("map"))) <= BOUND
            assert (got["height"], got["width"], got["step"]) == (67, 93, whole["step"])
        response = tiling.post("/v1/heatmap?model=gap", content=data)
        assert_error(response, 413, "payload_too_large", "at most 1024 pixels (max_canvas_pixels), the image has 93x67")


def test_head_that_takes_its_own_size_only_has_no_cells(make_client: MakeClient, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # any weights will do
    weights = {"conv": rng.normal(size=(4, 3, 3, 3)), "gemm": rng.normal(size=(4 * 8 * 8, 3))}
    nodes = [
        helper.make_node("Conv", ["images", "conv"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "gemm"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 10, 10])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    (tmp_path / "fixed" / "1").mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "fixed" / "1" / "model.onnx",
    )
    (tmp_path / "fixed" / "1" / "model.json").write_text("{}")
    client = make_client(models=tmp_path)
    data = png(rng.integers(0, 256, (10, 10, 3), np.uint8))
    assert_error(client.post("/v1/heatmap", content=data), 422, "invalid_parameter", "does not take a map of 1×1")
    described = client.post("/v1/embed?pool=max", content=data).json()
    assert described["dimension"] == 4

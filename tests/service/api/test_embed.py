"""POST /v1/embed in-process: descriptors are torch's on the same features, in every form, and of one run."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from starlette.testclient import TestClient
from torch.nn import functional as F

from export.network import Network
from service.api import embed
from service.api.embed import normalized
from service.codecs.images import decode
from service.errors import DeadlineExceeded
from tests.claims import relative_error
from tests.conftest import MakeClient
from tests.service.api.colour import GOOD
from tests.service.api.descriptors import BOUND, POOLS, ROOT, fill, picture, post
from tests.service.api.exported import png, tensor
from tests.service.api.serving import serving
from tests.tiny import TinyClassifier, card

SIZES = [(1, 1), (1, 9), (5, 3), (33, 71), (64, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, Network]:
    return fill(folder)


@pytest.fixture(scope="module")
def client(folder: Path, networks: dict[str, Network]) -> Iterator[TestClient]:
    with serving(models=folder) as made:
        yield made


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "×".join(map(str, size)))
@pytest.mark.parametrize("model", ["gap", "gem"])
def test_descriptors_are_torchs_on_the_backbones_features(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator, model: str, size: tuple[int, int]
) -> None:
    pixels = picture(rng, size)
    with torch.no_grad():
        features = networks[model].forward_features(tensor(pixels)).double()
    for query, pool in POOLS.items():
        got = post(client, f"model={model}&{query}&normalize=false", pixels)
        assert relative_error(got, pool(features).numpy()) <= BOUND, query


@pytest.mark.parametrize("size", [(8, 8), (71, 33), (480, 640)], ids=lambda size: "×".join(map(str, size)))
def test_shipped_models_descriptors_are_torchs_on_the_same_features(client: TestClient, size: tuple[int, int]) -> None:
    data = (ROOT / "docs" / "pictures" / f"digit-{size[1]}x{size[0]}.{'png' if size[0] < 480 else 'webp'}").read_bytes()
    model = onnx.load(ROOT / "models" / "digits" / "1" / "model.onnx")
    model.graph.output.append(onnx.ValueInfoProto(name="maximum_2"))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = decode(data, channels="L", max_pixels=10**6).transpose(2, 0, 1)[None]
    features = torch.from_numpy(
        session.run(["maximum_2"], {"images": (pixels / np.float32(255) - 0.5) / np.float32(0.5)})[0]
    )
    for query, pool in POOLS.items():
        response = client.post(f"/v1/embed?model=digits&{query}", content=data)
        expected = F.normalize(pool(features.double()), dim=1).numpy()[0]
        assert response.json()["dimension"] == len(expected)
        assert relative_error(np.array(response.json()["results"][0]["embedding"]), expected) <= BOUND, query


def test_own_embedding_by_default_of_unit_length(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator
) -> None:
    for model, network in networks.items():
        pictures = [picture(rng, size) for size in SIZES]
        with torch.no_grad():
            own = torch.cat([network(tensor(pixels))[1] for pixels in pictures])
        assert relative_error(post(client, f"model={model}&normalize=false", *pictures), own.numpy()) <= BOUND
        unit = post(client, f"model={model}", *pictures)
        assert relative_error(unit, F.normalize(own, dim=1).numpy()) <= BOUND
        assert relative_error(np.linalg.norm(unit, axis=1), np.ones(len(unit))) <= 1e-6


def test_json_says_the_same_of_each_picture_with_its_size(client: TestClient, rng: np.random.Generator) -> None:
    pictures = [picture(rng, size) for size in SIZES]
    query = "model=gap&pool=gem,max&levels=1,2"
    expected = post(client, query, *pictures)
    images = [base64.b64encode(png(pixels)).decode() for pixels in pictures]
    body = {"images": images, "model": "gap", "pool": ["gem", "max"], "levels": [1, 2]}
    document = client.post("/v1/embed", json=body).json()
    assert (document["model"], document["version"], document["dimension"]) == ("gap", "1", 2 * 5 * 6)
    assert [(one["height"], one["width"]) for one in document["results"]] == SIZES
    np.testing.assert_array_equal(np.array([one["embedding"] for one in document["results"]], np.float32), expected)


def test_parameters_may_be_form_fields(client: TestClient, rng: np.random.Generator) -> None:
    pixels = picture(rng, (12, 9))
    response = client.post(
        "/v1/embed", files={"image": png(pixels)}, data={"model": "gap", "pool": "gem", "p": "4", "normalize": "false"}
    )
    got = np.array(response.json()["results"][0]["embedding"], np.float32)
    np.testing.assert_array_equal(got, post(client, "model=gap&pool=gem&p=4&normalize=false", pixels)[0])


def test_boxes_are_in_pixels_of_the_picture(
    client: TestClient, networks: dict[str, Network], rng: np.random.Generator
) -> None:
    """With stride 2, the box of pixels 8 … 16 and 4 … 10 is cells 4 … 8 and 2 … 5, ends among them."""
    pixels = picture(rng, (40, 30))
    with torch.no_grad():
        features = networks["gap"].forward_features(tensor(pixels))[0]
    got = post(client, "model=gap&pool=max&normalize=false&boxes=[[8,4,16,10],[0,0,30,40]]", pixels)
    expected = torch.cat([features[:, 2:6, 4:9].amax((1, 2)), features.amax((1, 2))])
    assert relative_error(got[0], expected.numpy()) <= BOUND


def test_network_runs_once_whatever_is_asked(
    client: TestClient, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = client.app.state.poolserve.repository.models["gap"].features  # type: ignore[attr-defined]
    post(client, "model=gap&pool=avg", picture(rng, (4, 4)))
    runs = []
    run = features._ready.batcher._lane._run

    def counted(pixels: np.ndarray) -> Any:
        runs.append(len(pixels))
        return run(pixels)

    monkeypatch.setattr(features._ready.batcher._lane, "_run", counted)
    post(client, "model=gap&pool=gem,max,avg,rmac", picture(rng, (20, 20)))
    assert runs == [1]


def test_features_of_a_foreign_network(client: TestClient, rng: np.random.Generator) -> None:
    """One without an embedding of its own: Conv → ReLU → mean → Gemm, whose logits are the mean's, multiplied."""
    pixels = picture(rng, (7, 11))
    network = TinyClassifier.random(1)
    mean = post(client, "model=colour&pool=avg&normalize=false", pixels)[0]
    logits = mean @ network.gemm + network.bias
    assert relative_error(logits, network.logits(pixels, card().preprocessing)) <= BOUND


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalising_neither_overflows_nor_divides_by_zero(scale: float, rng: np.random.Generator) -> None:
    vectors = (rng.normal(size=(3, 50)) * scale).astype(np.float32)
    vectors[1] = 0
    unit = normalized(vectors)
    wide = vectors[[0, 2]].astype(np.float64)
    assert relative_error(unit[[0, 2]], wide / np.linalg.norm(wide, axis=1, keepdims=True)) <= 1e-6
    assert not unit[1].any()


def test_first_use_by_many_at_once_makes_one_session(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    features = client.app.state.poolserve.repository.models["colour"].features  # type: ignore[attr-defined]
    made: list[Any] = []
    make_it = features._make

    def counted() -> Any:
        made.append(make_it())
        return made[-1]

    monkeypatch.setattr(features, "_make", counted)

    async def impatient() -> None:
        with pytest.raises(DeadlineExceeded, match="before the features' session was made"):
            await features.ready(time.monotonic() + 1e-4)

    async def many() -> None:
        await asyncio.gather(*(features.ready(time.monotonic() + 30) for _ in range(5)))

    assert client.portal is not None
    client.portal.call(impatient)  # who leaves does not end it, and does not have it made again
    client.portal.call(many)
    assert len(made) == 1
    assert client.post("/v1/embed?model=colour&pool=max", content=GOOD).status_code == 200


def test_long_descriptors_are_written_in_a_thread_and_in_pieces(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the loop answers nobody while a gigabyte is written."""
    rng = np.random.default_rng(3)
    pixels = picture(rng, (40, 30))
    loops: list[bool] = []
    write = embed.json_pieces

    def watched(members: Mapping[str, object]) -> list[bytes]:
        loops.append(threading.current_thread().name.startswith("pool"))
        pieces = write(members)
        loops.append(len(pieces) > 1)
        return pieces

    monkeypatch.setattr(embed, "json_pieces", watched)
    for levels, large in (("1", False), ("64", True)):
        query = f"model=digits&pool=max&levels={levels}"
        files = {"image": ("a.png", png(pixels))}
        found = client.post(f"/v1/embed?{query}", files=files)
        assert found.status_code == 200
        assert int(found.headers["content-length"]) == len(found.content)
        (vector,) = post(client, query, pixels)
        assert found.json()["dimension"] == len(vector)
        assert np.array_equal(np.float32(found.json()["results"][0]["embedding"]), vector)
        assert loops[-2:] == [large, large]

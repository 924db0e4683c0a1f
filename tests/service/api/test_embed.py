"""POST /v1/embed in-process: descriptors are torch's on the same features, and every mistake has its own error."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient
from torch import Tensor
from torch.nn import functional as F

from export.network import Network
from graphs.operators.catalogue import CATALOGUE
from service.api.embed import normalized
from service.app import create_app
from service.codecs.images import decode
from service.errors import DeadlineExceeded
from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.graphs.operators.regions.test_rmac import squares
from tests.service.api.colour import GOOD
from tests.service.api.exported import make, png, tensor
from tests.tiny import TinyClassifier, card

ROOT = Path(__file__).parents[3]
BOUND = 1e-5
"""Of descriptors, relative to their largest number: float32 features of some roundings, pooled in float32."""

SIZES = [(1, 1), (1, 9), (5, 3), (33, 71), (64, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models" / "digits", made / "digits")
    TinyClassifier.random(1).save(made / "colour" / "1", card())
    return made


@pytest.fixture(scope="module")
def networks(folder: Path) -> dict[str, Network]:
    return make(folder, "gap", "gem")


@pytest.fixture(scope="module")
def client(folder: Path, networks: dict[str, Network]) -> Iterator[TestClient]:
    settings = Settings(models=folder)
    with TestClient(create_app(settings, Repository.load(settings)), raise_server_exceptions=False) as made:
        yield made


def post(client: TestClient, query: str, *pictures: np.ndarray) -> np.ndarray:
    """The descriptors, (N,D), as a .npy file has them."""
    files = [("image", ("a.png", png(pixels))) for pixels in pictures]
    response = client.post(f"/v1/embed?{query}", files=files, headers={"Accept": "application/x-npy"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-npy"
    vectors = np.load(io.BytesIO(response.content))
    assert vectors.dtype == np.float32
    return np.asarray(vectors)


def picture(rng: np.random.Generator, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (*size, channels), np.uint8)


def gem(x: Tensor, p: float) -> Tensor:
    return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)


def spoc(x: Tensor) -> Tensor:
    """Babenko and Lempitsky 2015, before whitening: a Gaussian of a sixth of the shorter side around the centre."""
    h, w = x.shape[2:]
    y, z = (torch.arange(side, dtype=x.dtype) - (side - 1) / 2 for side in (h, w))
    weights = torch.exp(-(y[:, None] ** 2 + z[None] ** 2) / (2 * (min(h, w) / 6) ** 2))
    return (weights * x).sum((2, 3))


def crow(x: Tensor) -> Tensor:
    """Kalantidis, Mellina, Osindero 2015, a = b = 2."""
    strength = x.sum(1, keepdim=True)
    weights = (strength / strength.pow(2).sum((2, 3), keepdim=True).sqrt()).nan_to_num().sqrt()
    share = (x != 0).to(x.dtype).mean((2, 3))
    rarity = torch.where(share > 0, (share.sum(1, keepdim=True) / share.clamp(min=1e-30)).log(), 0)
    return (weights * x).sum((2, 3)) * rarity


def rmac(x: Tensor) -> Tensor:
    """Tolias, Sicre, Jégou 2015, with the whole map as a region."""
    total = F.normalize(x.amax((2, 3)), dim=1, eps=1e-6)
    for top, left, side in squares(x.shape[2], x.shape[3], 3):
        total = total + F.normalize(x[:, :, top : top + side, left : left + side].amax((2, 3)), dim=1, eps=1e-6)
    return F.normalize(total, dim=1, eps=1e-6)


def pyramid(x: Tensor, *levels: int) -> Tensor:
    """Region after region, in each channel after channel."""
    return torch.cat([F.adaptive_max_pool2d(x, n).flatten(2).transpose(1, 2).flatten(1) for n in levels], 1)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool=avg": lambda x: x.mean((2, 3)),
    "pool=max": lambda x: x.amax((2, 3)),
    "pool=gem": lambda x: gem(x, 3),
    "pool=gem&p=4.5": lambda x: gem(x, 4.5),
    "pool=spoc": spoc,
    "pool=crow": crow,
    "pool=rmac": rmac,
    "pool=gem,max&p=2": lambda x: torch.cat([gem(x, 2), x.amax((2, 3))], 1),
    "pool=max&levels=1,2,4": lambda x: pyramid(x, 1, 2, 4),
    "pool=max,max&output_size=2": lambda x: torch.cat([pyramid(x, 2)] * 2, 1),
    "pool=mean_std": lambda x: torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1),
}


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


BAD = {
    "no such operator": ("pool=gemm", "pool: expected an operator", "gem"),
    "no name": ("pool=", "pool: expected an operator"),
    "operator with weights": ("pool=vlad", "pool: 'vlad' takes centres beside the features"),
    "windows": ("pool=max&kernel=2", "kernel: expected none for a descriptor: windows are as many as fit"),
    "strips": ("pool=max&strips=true", "strips: expected none for a descriptor"),
    "a mask": ("pool=max&mask=[[1]]", "mask: expected none for a descriptor"),
    "indices": ("pool=max&return_indices=true", "return_indices: expected none for a descriptor"),
    "layout": ("pool=max&layout=channels_last", "layout: expected none"),
    "keeps no length": ("pool=wavelet", "one length, 'wavelet' makes", "of maps of 5×7 and 12×9"),
    "half a grid": ("pool=max&output_size=2,none", "one length, 'max' makes 14×6 and 18×6 numbers"),
    "out of range": ("pool=gem&p=0", "pool=gem: p: "),
    "another operator's": ("pool=max&p=3", "unknown parameter 'p' of pool=max; known are: model, version, pool"),
    "without an operator": ("p=3", "unknown parameter 'p'; known are: model, version, pool, normalize; with `pool`"),
    "boxes": ("pool=max&boxes=[[1,2,3]]", "boxes: expected [[x1, y1, x2, y2], …]"),
    "boxes that are none": ("pool=max&boxes=hello", "boxes: expected [[x1, y1, x2, y2], …]"),
    "a box outside": ("pool=max&boxes=[[0,0,2,2],[1,1,6,5]]", "boxes[1]: expected 0 ≤ x1 ≤ x2 ≤ 5", "got 1, 1, 6, 5"),
    "normalize": ("normalize=perhaps", "normalize: "),
    "too many": ("pool=" + ",".join(["max"] * 17), "pool: "),
}


@pytest.mark.parametrize(("query", "says"), [(one[0], one[1:]) for one in BAD.values()], ids=BAD)
def test_what_makes_no_descriptor_is_a_clear_422(client: TestClient, query: str, says: tuple[str, ...]) -> None:
    assert_error(client.post(f"/v1/embed?model=gap&{query}", content=GOOD), 422, "invalid_parameter", *says)


NEEDS = {"kmax": "&k=3", "fractional_max": "&output_size=2", "lp": "&p=3"}


@pytest.mark.parametrize("op", CATALOGUE)
def test_every_operator_makes_one_length_or_says_why_not(client: TestClient, rng: np.random.Generator, op: str) -> None:
    lengths = []
    for size in [(21, 34), (60, 18), (2, 2)]:
        response = client.post(f"/v1/embed?model=gap&pool={op}{NEEDS.get(op, '')}", content=png(picture(rng, size)))
        if response.status_code != 200:
            assert CATALOGUE[op].weights or op in {"blur", "wavelet"} or (op, size) == ("fractional_max", (2, 2))
            assert_error(response, 422, "invalid_parameter", "pool")
            return
        vector = np.array(response.json()["results"][0]["embedding"])
        assert np.isfinite(vector).all()
        lengths.append(len(vector))
    assert len(set(lengths)) == 1
    assert lengths[0] >= 6


def test_other_errors_are_those_of_every_image_request(client: TestClient) -> None:
    assert_error(client.post("/v1/embed?model=gap", content=GOOD[:50]), 422, "invalid_image")
    assert_error(client.post("/v1/embed?model=gap&pool=avg", content=b"hello"), 415, "unsupported_media_type")
    assert_error(client.post("/v1/embed?model=nope&pool=avg", content=GOOD), 404, "model_not_found")
    assert_error(client.post("/v1/embed?model=gap"), 400, "malformed")
    files = [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD[:40]))]
    assert_error(client.post("/v1/embed?model=gap&pool=avg", files=files), 422, "invalid_image", "images[1]")
    response = client.post("/v1/embed?model=gap", content=GOOD, headers={"Accept": "image/png"})
    assert_error(response, 406, "not_acceptable", "expected one of application/json, application/x-npy")
    headers = {"X-Request-Timeout": "1e-9"}
    assert_error(client.post("/v1/embed?model=gap&pool=avg", content=GOOD, headers=headers), 504, "timeout")
    assert_error(
        client.post("/v1/embed?model=colour", content=GOOD), 422, "invalid_parameter", "no embedding of its own"
    )
    assert client.post("/v1/embed?model=gap&pool=avg", content=GOOD).status_code == 200


@pytest.fixture(scope="module")
def tiling(folder: Path, networks: dict[str, Network]) -> Iterator[TestClient]:
    """What has more than 1024 pixels is cut into tiles."""
    settings = Settings(models=folder, max_canvas_pixels=1024, max_tensor_elements=10**5)
    with TestClient(create_app(settings, Repository.load(settings)), raise_server_exceptions=False) as made:
        yield made


@pytest.mark.parametrize("size", [(33, 32), (70, 90), (31, 401)], ids=lambda size: "×".join(map(str, size)))
def test_pictures_in_tiles_have_the_descriptors_of_the_whole(
    tiling: TestClient, networks: dict[str, Network], rng: np.random.Generator, size: tuple[int, int]
) -> None:
    pixels = picture(rng, size)
    for model, network in networks.items():
        with torch.no_grad():
            features, own = network.forward_features(tensor(pixels)).double(), network(tensor(pixels))[1].numpy()
        assert relative_error(post(tiling, f"model={model}&normalize=false", pixels), own) <= BOUND
        for query, pool in POOLS.items():
            got = post(tiling, f"model={model}&{query}&normalize=false", pixels)
            assert relative_error(got, pool(features).numpy()) <= BOUND, query
    small = picture(rng, (8, 8))
    both = post(tiling, "model=gap&pool=max", small, pixels, small)
    np.testing.assert_array_equal(both[[0]], post(tiling, "model=gap&pool=max", small))
    np.testing.assert_array_equal(both[[1]], post(tiling, "model=gap&pool=max", pixels))


def test_more_features_than_are_held_at_once_is_a_413(tiling: TestClient) -> None:
    data = png(np.zeros((400, 500, 3), np.uint8))
    response = tiling.post("/v1/embed?model=gap&pool=avg", content=data)
    assert_error(response, 413, "payload_too_large", "at most 100000 numbers (max_tensor_elements)", "6×200×250")
    data = png(np.zeros((60, 60, 3), np.uint8))
    headers = {"X-Request-Timeout": "1e-9"}
    assert_error(tiling.post("/v1/embed?model=gap&pool=avg", content=data, headers=headers), 504, "timeout")
    assert tiling.post("/v1/embed?model=gap&pool=avg", content=data).status_code == 200
    admission = tiling.app.state.poolserve.repository.models["gap"].tiles.admission  # type: ignore[attr-defined]
    assert (admission.waiting, admission.backlog) == (0, 0)


def test_network_without_a_map_before_its_head_is_a_422(make_client: MakeClient, tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((12, 3), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["images"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    (tmp_path / "flat" / "1").mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "flat/1/model.onnx",
    )
    (tmp_path / "flat/1/model.json").write_text("{}")
    client = make_client(models=tmp_path)
    for _ in range(2):
        response = client.post("/v1/embed?pool=avg", content=png(np.zeros((2, 2, 3), np.uint8)))
        assert response.status_code in {200, 422}
        if response.status_code == 422:
            assert_error(response, 422, "invalid_parameter", "model flat/1 has no features")


def test_wrong_features_in_a_card_stop_the_start(tmp_path: Path) -> None:
    TinyClassifier.random(1).save(tmp_path / "colour" / "1", card(features="relu"))
    with pytest.raises(RepositoryError, match="the graph has no value 'relu'; the nearest maps are"):
        Repository.load(Settings(models=tmp_path))


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


def test_file_that_has_changed_since_the_start_is_a_500_that_says_nothing(
    make_client: MakeClient, tmp_path: Path
) -> None:
    path = TinyClassifier.random(1).save(tmp_path / "colour" / "1", card())
    client = make_client(models=tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert_error(client.post("/v1/embed?pool=max", content=GOOD), 500, "internal", "the server's log has the detail")
    assert client.post("/v1/classify", content=GOOD).status_code == 200

"""Numbers as the body of /v1/classify: the network's own input and pixels give what the picture gives, every mistake its error."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from graphs.card import ModelCard
from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings
from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.service.api.colour import GOOD
from tests.tiny import TinyClassifier, card

RAW = {"Content-Type": "application/octet-stream"}
NPY = {"Content-Type": "application/x-npy"}
NETWORK = TinyClassifier.random(1)  # `colour`


@pytest.fixture(params=["event loop", "thread"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every model short enough for the event loop, or none: which it is depends on the machine."""
    worth = {"event loop": 1e3, "thread": 0.0}[request.param]
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: worth)
    name: str = request.param
    return name


def own_input(image: np.ndarray, card: ModelCard) -> np.ndarray:
    """What the network gets of a picture uint8 (H,W,C), by the card's formula: float32 (C,H,W)."""
    said = card.preprocessing
    x = image[..., ::-1] if said.channels == "BGR" else image
    x = (x * said.scale - np.array(said.mean)) / np.array(said.std)
    return np.ascontiguousarray(x.transpose(2, 0, 1), np.float32)


def npy(tensor: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, tensor)
    return file.getvalue()


def query(tensor: np.ndarray, model: str = "colour") -> str:
    return f"/v1/classify?model={model}&shape={','.join(map(str, tensor.shape))}&dtype={tensor.dtype}"


def expected(image: np.ndarray, network: TinyClassifier = NETWORK, card_: ModelCard | None = None) -> np.ndarray:
    """Probabilities in float64."""
    z = network.logits(image, (card_ or card()).preprocessing)
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def found(result: dict[str, Any]) -> np.ndarray:
    """Probabilities by index."""
    p = {entry["index"]: entry["probability"] for entry in result["predictions"]}
    return np.array([p[index] for index in range(len(p))])


def assert_results(response: Any, images: list[np.ndarray]) -> None:
    """Every image's own probabilities, in order, relative error ≤ 1e-4 (a logit of 10 is off by 1e-5), and its size."""
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert len(results) == len(images)
    for result, image in zip(results, images, strict=True):
        assert (result["height"], result["width"]) == image.shape[:2]
        assert relative_error(found(result), expected(image)) <= 1e-4


def picture(rng: np.random.Generator, height: int = 9, width: int = 14) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (17, 5), (64, 64)])
def test_own_input(road: str, make_client: MakeClient, rng: np.random.Generator, size: tuple[int, int]) -> None:
    image = picture(rng, *size)
    x = own_input(image, card())
    client = make_client()
    for _ in range(2):  # the first makes the session where it is not there yet
        assert_results(client.post(query(x), content=x.tobytes(), headers=RAW), [image])


def test_several_in_order(road: str, make_client: MakeClient, rng: np.random.Generator) -> None:
    images = [picture(rng) for _ in range(5)]
    x = np.stack([own_input(image, card()) for image in images])
    assert_results(make_client().post(query(x), content=x.tobytes(), headers=RAW), images)


def test_npy_says_its_shape_itself(road: str, make_client: MakeClient, rng: np.random.Generator) -> None:
    images = [picture(rng) for _ in range(3)]
    x = np.stack([own_input(image, card()) for image in images])
    client = make_client()
    assert_results(client.post("/v1/classify?model=colour", content=npy(x), headers=NPY), images)
    assert_results(client.post("/v1/classify?model=colour", content=npy(x[1])), images[1:2])  # known by its first bytes
    swapped = np.asfortranarray(x.astype(">f4"))
    assert_results(client.post("/v1/classify?model=colour", content=npy(swapped), headers=NPY), images)


def test_pixels_go_as_decoded_pictures_do(road: str, make_client: MakeClient, rng: np.random.Generator) -> None:
    images = [picture(rng) for _ in range(4)]
    client = make_client()
    for tensor, those in ((images[0], images[:1]), (np.stack(images), images)):
        assert_results(client.post(query(tensor), content=tensor.tobytes(), headers=RAW), those)
        assert_results(client.post("/v1/classify?model=colour", content=npy(tensor), headers=NPY), those)


def test_parameters_stand_beside_shape_and_dtype(client: TestClient, rng: np.random.Generator) -> None:
    image = picture(rng)
    x = own_input(image, card())
    response = client.post(f"{query(x)}&top=1&version=1", content=x.tobytes(), headers=RAW)
    (prediction,) = response.json()["results"][0]["predictions"]
    assert prediction["index"] == int(expected(image).argmax())
    assert response.headers["server-timing"].startswith("decode;dur=")
    assert response.headers["content-type"] == "application/json"


def test_curls_own_content_type_is_read_as_raw_numbers(client: TestClient, rng: np.random.Generator) -> None:
    image = picture(rng)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert_results(client.post(query(image), content=image.tobytes(), headers=headers), [image])


MakeOther = Callable[..., TestClient]


@pytest.fixture
def make_other(tmp_path: Path) -> Any:
    """A client of one model, `other`, of a card and with options of its own."""
    clients: list[TestClient] = []

    def make(card_: ModelCard, settings: dict[str, object] | None = None, **options: object) -> TestClient:
        NETWORK.save(tmp_path / "other" / "1", card_, **options)
        made = Settings.model_validate({"models": tmp_path, **(settings or {})})
        clients.append(TestClient(create_app(made, Repository.load(made)), raise_server_exceptions=False))
        clients[-1].__enter__()
        return clients[-1]

    yield make
    for each in clients:
        each.__exit__(None, None, None)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_channels_last_where_the_network_has_them_last(
    road: str, make_other: MakeOther, rng: np.random.Generator, channels: str
) -> None:
    last = card(preprocessing={**card(channels).preprocessing.model_dump(), "layout": "NHWC"})
    image = picture(rng)
    x = np.ascontiguousarray(own_input(image, last).transpose(1, 2, 0))  # (H,W,C)
    client = make_other(last)
    response = client.post(query(x, "other"), content=x.tobytes(), headers=RAW)
    assert relative_error(found(response.json()["results"][0]), expected(image, card_=last)) <= 1e-4
    refused = x.transpose(2, 0, 1)
    assert_error(
        client.post(query(refused, "other"), content=x.tobytes(), headers=RAW),
        422, "invalid_tensor", "expected (H,W,3) or (N,H,W,3)", "got (3, 9, 14)",
    )  # fmt: skip


def test_half_precision_network_takes_its_own_dtype(road: str, make_other: MakeOther, rng: np.random.Generator) -> None:
    """float16 has 11 bits: relative error ≤ 0.1 of the probabilities, and the same class."""
    image = picture(rng)
    x = own_input(image, card()).astype(np.float16)
    client = make_other(card(), dtype=10)
    response = client.post(query(x, "other"), content=x.tobytes(), headers=RAW)
    assert relative_error(found(response.json()["results"][0]), expected(image)) <= 0.1
    single = x.astype(np.float32)
    refusal = client.post(query(single, "other"), content=single.tobytes(), headers=RAW)
    assert_error(refusal, 422, "invalid_tensor", "dtype: expected float16", "got float32")


@pytest.mark.parametrize("batch", [1, 4])
def test_batch_that_the_graph_fixes_is_kept(
    road: str, make_other: MakeOther, rng: np.random.Generator, batch: int
) -> None:
    images = [picture(rng, 8, 8) for _ in range(6)]
    x = np.stack([own_input(image, card()) for image in images])
    client = make_other(card(), size=(8, 8), batch=batch)
    assert_results(client.post(query(x, "other"), content=x.tobytes(), headers=RAW), images)
    small = x[:, :, :7]
    refusal = client.post(query(small, "other"), content=small.tobytes(), headers=RAW)
    assert_error(refusal, 422, "invalid_image", "takes exactly 8×8 pixels", "got 8×7")


BASE64 = base64.b64encode(GOOD).decode()
X = np.zeros((3, 4, 5), np.float32)
PNG = {"Content-Type": "image/png"}
BYTES = X.tobytes()
FIT = "shape=3,4,5&dtype=float32"
TENSOR, PARAMETER = (422, "invalid_tensor"), (422, "invalid_parameter")
BESIDE = "expected beside raw numbers"
KNOWN = "unknown parameter 'layout'; known are: model, version, top, shape, dtype"
BAD = {
    "too short": (FIT, BYTES[:-4], RAW, TENSOR, "expected 240 bytes for (3,4,5) float32, got 236"),
    "too long": (FIT, BYTES + b"0000", RAW, TENSOR, "expected 240 bytes"),
    "no dtype": ("shape=3,4,5", BYTES, RAW, PARAMETER, f"dtype: {BESIDE}"),
    "no shape": ("dtype=float32", BYTES, RAW, PARAMETER, f"shape: {BESIDE}"),
    "other dtype": ("shape=3,4,5&dtype=float64", bytes(480), RAW, TENSOR, "or uint8 (pixels), got float64"),
    "dtype of no name": ("shape=3,4,5&dtype=float", BYTES, RAW, TENSOR, "dtype: expected one of float16"),
    "shape that is none": ("shape=3x4x5&dtype=float32", BYTES, RAW, TENSOR, "shape: expected sizes as in"),
    "empty shape": ("shape=&dtype=float32", BYTES, RAW, TENSOR, "shape: expected (3,H,W) or (N,3,H,W)"),
    "rank 2": ("shape=12,5&dtype=float32", BYTES, RAW, TENSOR, "none of them 0, got (12, 5)"),
    "rank 5": ("shape=1,1,3,4,5&dtype=float32", BYTES, RAW, TENSOR, "got (1, 1, 3, 4, 5)"),
    "channels": ("shape=5,4,3&dtype=float32", BYTES, RAW, TENSOR, "got (5, 4, 3)"),
    "nothing of it": ("shape=3,0,5&dtype=float32", b"0", RAW, TENSOR, "none of them 0"),
    "no images": ("shape=0,3,4,5&dtype=float32", b"0", RAW, TENSOR, "none of them 0"),
    "pixels' channels": ("shape=4,5,4&dtype=uint8", bytes(80), RAW, TENSOR, "expected pixels (H,W,3) or (N,H,W,3)"),
    "huge": ("shape=3,100000,100000&dtype=float32", b"0", RAW, (413, "payload_too_large"), "elements"),
    "beyond memory": ("shape=3,9999999999,9999999999&dtype=float32", b"0", RAW, TENSOR, "2^63"),
    "picture with a shape": (FIT, b"0", PNG, PARAMETER, BESIDE),
    ".npy with a shape": (FIT, npy(X), NPY, PARAMETER, BESIDE),
    "no .npy": ("", b"no .npy", NPY, (415, "unsupported_media_type"), "expected a .npy file"),
    "truncated .npy": ("", npy(X)[:-8], NPY, TENSOR, "expected 240 bytes of data"),
    ".npy of float64": ("", npy(X.astype(np.float64)), NPY, TENSOR, "got float64"),
    ".npy of bool": ("", npy(X > 0), NPY, TENSOR, "got bool"),
    "shape twice": (f"shape=3,4,5&{FIT}", BYTES, RAW, PARAMETER, "'shape' is given twice"),
    "unknown parameter": (f"{FIT}&layout=x", BYTES, RAW, PARAMETER, KNOWN),
    "empty body": (FIT, b"", RAW, (400, "malformed"), "expected a body, got none"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_mistake_has_its_error_and_hurts_nobody(client: TestClient, bad: tuple[Any, ...]) -> None:
    said, body, headers, error, says = bad
    for _ in range(2):  # a refusal is not remembered as an answer
        response = client.post(f"/v1/classify?model=colour&{said}", content=body, headers=headers)
        assert_error(response, *error, says)
    assert client.post(query(X), content=BYTES, headers=RAW).status_code == 200


def test_shape_and_dtype_belong_to_raw_numbers_only(client: TestClient) -> None:
    says = "shape, dtype: expected beside raw numbers"
    response = client.post("/v1/classify?model=colour&shape=1", json={"images": [BASE64]})
    assert_error(response, 422, "invalid_parameter", says)
    response = client.post("/v1/classify?model=colour", json={"images": [BASE64], "dtype": "uint8"})
    assert_error(response, 422, "invalid_parameter", says)
    response = client.post("/v1/classify?model=colour", files=[("image", GOOD)], data={"shape": "1,2"})
    assert_error(response, 422, "invalid_parameter", says)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_images": 2}, "at most 2 images in a request, got 3"),
        ({"max_pixels": 19}, "at most 19 pixels, the image has 5x4"),
        ({"max_tensor_elements": 179}, "at most 179 elements, got 180"),
        ({"max_body_bytes": 719}, "at most 719 bytes, Content-Length says 720"),
    ],
)
def test_limits_hold(make_client: MakeClient, settings: dict[str, int], says: str) -> None:
    x = np.zeros((3, 3, 4, 5), np.float32)
    response = make_client(**settings).post(query(x), content=x.tobytes(), headers=RAW)
    assert_error(response, 413, "payload_too_large", says)


def test_numbers_that_are_none_give_null_as_a_network_does(client: TestClient) -> None:
    """NaN in, NaN out: JSON has no word for it but null."""
    x = np.full((3, 4, 5), np.nan, np.float32)
    response = client.post(query(x), content=x.tobytes(), headers=RAW)
    assert response.status_code == 200
    assert [entry["probability"] for entry in orjson.loads(response.content)["results"][0]["predictions"]] == [None] * 3


def test_document_shows_numbers(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]
    assert {"shape", "dtype"} <= {parameter["name"] for parameter in operation["parameters"]}
    assert "application/x-npy" in operation["requestBody"]["content"]
    assert "invalid_tensor" in operation["responses"]["422"]["description"]

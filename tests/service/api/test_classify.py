"""POST /v1/classify in-process: every way in gives the network's own answer, and every mistake its own error."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.runtime.ranking import probabilities
from service.runtime.session import Session
from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.service.api.colour import GOOD, assert_healthy, assert_result, png
from tests.tiny import TinyClassifier, card


def picture(rng: np.random.Generator, height: int = 9, width: int = 14) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (17, 5), (64, 64)])
def test_raw_body(client: TestClient, rng: np.random.Generator, size: tuple[int, int]) -> None:
    pixels = picture(rng, *size)
    response = client.post("/v1/classify?model=colour", content=png(pixels), headers={"Content-Type": "image/png"})
    body = response.json()
    assert (response.status_code, body["model"], body["version"]) == (200, "colour", "1")
    assert_result(body["results"][0], pixels)


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", ""]
)
def test_content_decides_not_its_type(client: TestClient, rng: np.random.Generator, content_type: str) -> None:
    pixels = picture(rng)
    response = client.post("/v1/classify?model=colour", content=png(pixels), headers={"Content-Type": content_type})
    assert_result(response.json()["results"][0], pixels)


def test_multipart_with_parameters(client: TestClient, rng: np.random.Generator) -> None:
    pictures = [picture(rng, *rng.integers(1, 20, 2)) for _ in range(5)]
    files = [("image", (f"{i}.png", png(pixels), "image/png")) for i, pixels in enumerate(pictures)]
    response = client.post("/v1/classify", files=files, data={"model": "colour", "top": "2"})
    for result, pixels in zip(response.json()["results"], pictures, strict=True):
        assert_result(result, pixels, top=2)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_json_with_base64_and_parameters(client: TestClient, rng: np.random.Generator, prefix: str) -> None:
    pictures = [picture(rng), picture(rng, 3, 3)]
    images = [prefix + base64.b64encode(png(pixels)).decode() for pixels in pictures]
    response = client.post("/v1/classify", json={"images": images, "model": "colour", "top": 1})
    for result, pixels in zip(response.json()["results"], pictures, strict=True):
        assert_result(result, pixels, top=1)


@pytest.mark.parametrize("size", [100, 700_000, 1_600_000])
def test_json_of_any_size_is_read(client: TestClient, size: int) -> None:
    """Bytes behind a PNG's end mean nothing; of large JSON it is looked first how many values it has."""
    image = base64.b64encode(GOOD + bytes(size)).decode()
    response = client.post(
        "/v1/classify", json={"images": [image, "data:image/png;base64," + image], "model": "colour"}
    )
    assert [row["width"] for row in response.json()["results"]] == [Image.open(io.BytesIO(GOOD)).width] * 2


def test_grey_model_gets_luma(client: TestClient, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (7, 9, 1), np.uint8)
    response = client.post("/v1/classify?model=grey&version=3&top=1", content=png(grey))
    logits = TinyClassifier.random(2, channels=1).logits(grey, card("L").preprocessing)
    assert response.json()["results"][0]["predictions"][0]["index"] == int(logits.argmax())


def test_answer_says_where_its_time_went_and_keeps_the_callers_id(client: TestClient, rng: np.random.Generator) -> None:
    response = client.post("/v1/classify?model=colour", content=png(picture(rng)), headers={"X-Request-ID": "order-66"})
    pattern = r"decode;dur=[\d.]+, queue;dur=[\d.]+, infer;dur=[\d.]+, encode;dur=[\d.]+"
    assert re.fullmatch(pattern, response.headers["server-timing"])
    assert response.headers["x-request-id"] == "order-66"


@pytest.mark.parametrize("given", ["new\tline", "é", "x" * 129, "", "<script>"])
def test_insane_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/health/live", headers={"X-Request-ID": given.encode()})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


BASE64 = base64.b64encode(GOOD).decode()

BAD_QUERIES = {
    "top=-1": ("model=colour&top=-1", 422, "invalid_parameter", "top"),
    "top=0": ("model=colour&top=0", 422, "invalid_parameter", "top"),
    "top=x": ("model=colour&top=x", 422, "invalid_parameter", "top"),
    "unknown parameter": (
        "model=colour&tpo=3",
        422,
        "invalid_parameter",
        "unknown parameter 'tpo'; known are: model, version, top",
    ),
    "unknown model": ("model=color", 404, "model_not_found", "did you mean colour"),
    "path for a model": ("model=../colour", 404, "model_not_found", "no such model"),
    "unknown version": ("model=colour&version=2", 404, "model_not_found", "loaded is: 1"),
    "no model": ("", 422, "invalid_parameter", "one of: colour, grey"),
}


@pytest.mark.parametrize(("query", "status", "code", "says"), BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_bad_query(client: TestClient, query: str, status: int, code: str, says: str) -> None:
    assert_error(client.post(f"/v1/classify?{query}", content=GOOD), status, code, says)
    assert_healthy(client)


BAD_JSON = {
    "not JSON": (b"{", 400, "malformed", "expected an object in UTF-8, got truncated"),
    "not UTF-8": (b'{"images": ["\xff"]}', 400, "malformed", "got not UTF-8"),
    "a list": (b"[]", 400, "malformed", "got an array"),
    "no images": (b'{"model": "colour"}', 400, "malformed", "array of base64 strings, got none"),
    "no image in images": (b'{"model": "colour", "images": []}', 422, "invalid_parameter", "at least one image"),
    "a number for an image": (
        b'{"model": "colour", "images": [1]}',
        400,
        "malformed",
        "images[0]: expected a base64 string",
    ),
    "a URL": (b'{"model": "colour", "images": ["http://169.254.169.254/"]}', 422, "invalid_image", "no URL is fetched"),
    "deep": (b'{"images": ' + b"[" * 250_000 + b"]" * 250_000 + b"}", 400, "malformed", "levels of nesting"),
    "a name twice": (
        f'{{"model": "colour", "images": ["{BASE64}"], "model": "grey"}}'.encode(),
        400,
        "malformed",
        "expected each member once, model is there twice",
    ),
    "images twice": (
        f'{{"model": "colour", "images": ["{BASE64}"], "images": []}}'.encode(),
        400,
        "malformed",
        "images is there twice",
    ),
    "no padding": (
        b'{"model": "colour", "images": ["iVBORw0"]}',
        422,
        "invalid_image",
        "expected base64, padded (no URL is fetched), got 7 characters, which is no multiple of 4",
    ),
    "a million images": (
        b'{"model": "colour", "images": [%b""]}' % (b'"",' * 1_000_000),
        413,
        "payload_too_large",
        "at most 64 images in a request and few parameters",
    ),
    "a million values beside the images": (
        b'{"model": "colour", "images": [""], "a": [%b0]}' % (b"[]," * 1_000_000),
        413,
        "payload_too_large",
        "at most 64 images in a request and few parameters",
    ),
    "too many values beside the images": (
        b'{"model": "colour", "images": [""], "a": [%b0]}' % (b"0," * 20_000),
        413,
        "payload_too_large",
        "a: expected at most 10000 values",
    ),
    "unknown parameter": (
        f'{{"model": "colour", "images": ["{BASE64}"], "a": 1}}'.encode(),
        422,
        "invalid_parameter",
        "'a'",
    ),
    "wrong type": (
        f'{{"model": "colour", "images": ["{BASE64}"], "top": [1]}}'.encode(),
        422,
        "invalid_parameter",
        "top",
    ),
    "unknown model": (f'{{"model": "x", "images": ["{BASE64}"]}}'.encode(), 404, "model_not_found", "loaded are"),
}


@pytest.mark.parametrize(("body", "status", "code", "says"), BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json(client: TestClient, body: bytes, status: int, code: str, says: str) -> None:
    response = client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    assert_error(response, status, code, says)
    assert_healthy(client)


def test_compressed_bodies_are_refused_with_what_is_read(client: TestClient) -> None:
    for encoding, status in (("gzip", 415), ("br", 415), ("", 200), ("identity", 200)):
        for asked in ({"content": GOOD}, {"json": {"images": [BASE64]}}, {"files": {"image": GOOD}}):
            response = client.post("/v1/classify?model=colour", headers={"Content-Encoding": encoding}, **asked)  # type: ignore[arg-type]
            assert response.status_code == status
            if status == 415:
                assert_error(response, 415, "unsupported_encoding", "expected none or identity")
                assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("version", "status"), [("1", 200), (1, 200), (2, 404), (1.0, 422), (True, 422), ([1], 422)])
def test_version_in_json_is_text_or_an_integer(client: TestClient, version: object, status: int) -> None:
    """As `version=1` in a query."""
    response = client.post("/v1/classify", json={"images": [BASE64], "model": "colour", "version": version})
    assert response.status_code == status, response.text
    assert status != 422 or "version" in response.json()["error"]


def test_parameter_given_twice(client: TestClient) -> None:
    response = client.post("/v1/classify?model=colour&top=1", json={"images": [BASE64], "top": 2})
    assert_error(response, 422, "invalid_parameter", "'top' is given in the query and in the body")


BAD_MULTIPART = {
    "no boundary": ("multipart/form-data", b"--x\r\n"),
    "cut off": ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; na"),
    "no disposition": ("multipart/form-data; boundary=x", b"--x\r\n\r\nhello\r\n--x--\r\n"),
    "not multipart at all": ("multipart/form-data; boundary=x", GOOD),
}


@pytest.mark.parametrize(("content_type", "body"), BAD_MULTIPART.values(), ids=BAD_MULTIPART)
def test_bad_multipart(client: TestClient, content_type: str, body: bytes) -> None:
    response = client.post("/v1/classify?model=colour", content=body, headers={"Content-Type": content_type})
    assert response.status_code in {400, 422}
    assert_error(response, response.status_code, {400: "malformed", 422: "invalid_parameter"}[response.status_code])
    assert_healthy(client)


def test_broken_image_among_many_is_named_and_nothing_else_is_lost(client: TestClient) -> None:
    files = [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD[:40])), ("image", ("c.png", GOOD))]
    assert_error(client.post("/v1/classify?model=colour", files=files), 422, "invalid_image", "images[1]: ")
    assert_healthy(client)


def test_too_many_images(make_client: MakeClient) -> None:
    client = make_client(max_images=2)
    files = [("image", ("a.png", GOOD))] * 3
    assert_error(client.post("/v1/classify?model=colour", files=files), 413, "payload_too_large", "at most 2 images")
    images = {"model": "colour", "images": [BASE64] * 3}
    assert_error(client.post("/v1/classify", json=images), 413, "payload_too_large", "at most 2 images", "got 3")
    assert_healthy(client)


def test_body_past_its_limit(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1000)
    response = client.post("/v1/classify?model=colour", content=b"x" * 1001)
    assert_error(response, 413, "payload_too_large", "at most 1000 bytes", "says 1001")
    assert response.headers["connection"] == "close"

    def chunks() -> Any:
        yield from [b"x" * 400] * 3

    assert_error(client.post("/v1/classify?model=colour", content=chunks()), 413, "payload_too_large", "more came")
    assert_healthy(client)


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "nan"])
def test_bad_time_limit(client: TestClient, limit: str) -> None:
    response = client.post("/v1/classify?model=colour", content=GOOD, headers={"X-Request-Timeout": limit})
    assert_error(response, 422, "invalid_parameter", "X-Request-Timeout: expected seconds > 0")


def test_time_limit_that_has_passed_is_a_504(client: TestClient) -> None:
    response = client.post("/v1/classify?model=colour", content=GOOD, headers={"X-Request-Timeout": "1e-9"})
    assert_error(response, 504, "timeout")
    assert_healthy(client)


def test_failing_session_is_a_500_that_says_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /etc/shadow")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", fail)
        response = client.post("/v1/classify?model=colour", content=GOOD)
    assert_error(response, 500, "internal", "the server's log has the detail")
    assert "secret" not in response.text
    assert_healthy(client)


def test_full_queue_is_a_429_with_retry_after_before_the_body_is_read(make_client: MakeClient) -> None:
    client = make_client(max_queue=1)
    admission = client.app.state.poolserve.repository.models["colour"].admission  # type: ignore[attr-defined]
    ticket = admission.admit(30.0)

    response = client.post("/v1/classify?model=colour", content=GOOD)
    assert_error(response, 429, "overloaded", "1 requests are before it")
    assert int(response.headers["retry-after"]) >= 1
    ticket.leave(answered=False)
    assert_healthy(client)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e30])
def test_probabilities_do_not_overflow(scale: float, rng: np.random.Generator) -> None:
    """Softmax of logits as large as float32 has them; (−100, 3) overflowed a well-known server."""
    logits = (rng.normal(size=50) * scale).astype(np.float32)
    p = probabilities(logits, "softmax")
    assert np.isfinite(p).all()
    assert abs(p.sum() - 1) <= 1e-5
    assert p.argmax() == logits.argmax()
    assert probabilities(np.array([-100, 3], np.float32), "softmax") == pytest.approx([0.0, 1.0], abs=1e-30)


def test_sigmoid_and_none(rng: np.random.Generator) -> None:
    logits = rng.normal(size=20).astype(np.float32) * 3
    assert relative_error(probabilities(logits, "sigmoid"), 1 / (1 + np.exp(-logits.astype(np.float64)))) <= 1e-6
    assert probabilities(np.array([-1e30, 1e30], np.float32), "sigmoid").tolist() == [0.0, 1.0]
    assert (probabilities(logits, "none") == logits).all()

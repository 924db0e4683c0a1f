"""Inference by the protocol over HTTP: what is refused, in which words, and that a refusal leaves all well."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.service.api.oip.inference import INFER, LENGTH, POOL, assert_healthy, pixels_of, png
from tests.service.api.serving import serving


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    """One app for all tests here that need no settings of their own: that nothing is left behind is one of the claims."""
    with serving(models=model_folder) as made:
        yield made


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
WINDOWS: dict[str, tuple[dict[str, Any], str]] = {
    "kernel 10^9": ({"kernel": 10**9}, "kernel: a window of 1000000000 cells is larger than the plane's 4"),
    "kernel 0": ({"kernel": 0}, "kernel: Input should be greater than or equal to 1"),
    "stride 0": ({"kernel": 2, "stride": 0}, "stride: Input should be greater than or equal to 1"),
    "stride -1": ({"kernel": 2, "stride": -1}, "stride: Input should be greater than or equal to 1"),
    "padding beyond the window": ({"kernel": 2, "padding": 9}, "padding: expected at most half the kernel of 2, got 9"),
    "dilation 2^62": ({"kernel": 2, "dilation": 2**62}, "dilation: Input should be less than"),
    "output_size 10^9": ({"output_size": 10**9}, "expected at most 268435456 regions"),
    "p 0": ({"op": "gem", "p": 0}, "p: expected at least 0.01 away from 0, got 0"),
    "p NaN": ({"op": "gem", "p": "nan"}, "p: Input should be a finite number"),
    "an unknown parameter": ({"colour": 3}, "unknown parameter 'colour' of 'max'; known are: align, boxes"),
    "an unknown operator": ({"op": "nope"}, "op: expected an operator of the catalogue, got another name"),
}
for name, (parameters, words) in WINDOWS.items():
    window = {"inputs": [pixels_of([1, 4, 4], "FP32", "tensor")], "parameters": {"op": "max", **parameters}}
    REFUSED[name] = (POOL, window, words)


@pytest.mark.parametrize(("path", "document", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_422_elsewhere_is_400_here(client: TestClient, path: str, document: dict[str, Any], says: str) -> None:
    response = client.post(path, json=document)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error", "code", "request_id"}
    assert says in response.json()["error"]
    assert_healthy(client)


def test_picture_that_is_none_is_named(client: TestClient) -> None:
    good = png(np.zeros((20, 20, 3), np.uint8))
    for bad, status, code in ((b"hello", 415, "unsupported_media_type"), (good[:-40], 400, "invalid_image")):
        given = {"name": "image_bytes", "shape": [2], "datatype": "BYTES"}
        data = [base64.b64encode(one).decode() for one in (good, bad)]
        assert_error(client.post(INFER, json={"inputs": [{**given, "data": data}]}), status, code, "images[1]")
    assert_healthy(client)


@pytest.mark.parametrize(
    "value",
    ["-1", "+5", "12abc", "1e3", "\u0663".encode(), str(2**31), str(2**63), "1" + "0" * 400, "", " ", "0x10", "1_0"],
)
def test_header_lengths_that_are_none(client: TestClient, value: str | bytes) -> None:
    content = json.dumps({"inputs": [pixels_of([1, 3, 3, 3])]}).encode()
    response = client.post(INFER, content=content, headers={LENGTH: value})  # type: ignore[arg-type]
    assert_error(response, 400, "malformed", LENGTH)
    assert_healthy(client)


def test_header_length_twice_or_within_the_json(client: TestClient) -> None:
    content = json.dumps({"inputs": [pixels_of([1, 3, 3, 3])]}).encode()
    for lengths in ([len(content)] * 2, [len(content) // 2], [len(content) + 1]):
        response = client.post(INFER, content=content, headers=[(LENGTH, str(length)) for length in lengths])
        assert_error(response, 400, "malformed")
    assert_healthy(client)


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


NAMES = ["../colour", "%2e%2e%2fcolour", "colour%00", "c" * 10_000, "сolour", "colour%2f..", " colour", "%ff%fe"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_no_model(client: TestClient, name: str) -> None:
    response = client.post(f"/v2/models/{name}/infer", json={"inputs": [pixels_of([1, 3, 3, 3])]})
    assert response.status_code == 404
    assert set(response.json()) == {"error", "code", "request_id"}
    assert_healthy(client)

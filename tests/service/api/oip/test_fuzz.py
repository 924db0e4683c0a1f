"""Whatever is sent to inference by the protocol, it is answered: 200, or an error of the caller's with words; never a 500."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from graphs.operators.catalogue import CATALOGUE
from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings

LENGTH = "Inference-Header-Content-Length"
NUMERIC = ["FP32", "FP16", "FP64", "UINT8", "INT8", "INT64", "UINT64"]
PICTURE = (  # 1×1, PNG
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ONE = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["NaN", "Infinity", "max", "2,2", 10**30, -0.0, 1e400])
)
anything = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


sizes = st.one_of(st.integers(0, 4), st.sampled_from([-1, 2**31, 2**32, 2**63, 2**64, 1.0, True]))
values = ["max", "avg", "gem", "topk", "rmac", "lse", "rank", "2", "2,2", "same", "omit", 0, 1, 2, 3, 2.5, True, 10**9]
own = st.dictionaries(
    st.sampled_from(
        ["kernel", "stride", "padding", "p", "k", "levels", "output_size", "spatial", "timeout", "nan", "groups"]
    ),
    st.one_of(st.sampled_from(values), st.sampled_from(values), atoms),
    max_size=2,
)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.sampled_from(["", "aGVsbG8=", PICTURE, PICTURE, PICTURE])
    return st.integers(0, 100) if "INT" in datatype else st.integers(-9, 9) | st.floats(-9, 9)


@st.composite
def tensors(draw: st.DrawFn, name: str, datatype: str, shape: list[int]) -> tuple[dict[str, Any], bytes]:
    """A tensor as it should be, in JSON or with its bytes."""
    tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
    count = math.prod(shape)
    size = {"BOOL": 1, "BYTES": 0}.get(datatype, int(datatype.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") or 0) // 8)
    if size and draw(st.booleans()):
        tensor["parameters"] = {"binary_data_size": count * size}
        return tensor, bytes(count * size)
    tensor["data"] = draw(st.lists(elements(datatype), min_size=count, max_size=count))
    return tensor, b""


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any], bytes]:
    """A model, a document and a tail, as they should be."""
    model = draw(st.sampled_from(["colour", "pool", "pool"]))
    document: dict[str, Any] = {}
    if model == "colour":
        if draw(st.booleans()):
            shape = [draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), 3]
            inputs = [draw(tensors("images", "UINT8", shape))]
        else:
            inputs = [draw(tensors("image_bytes", "BYTES", [draw(st.integers(1, 2))]))]
        found = ["logits", "probabilities"]
    else:
        shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
        inputs = [draw(tensors("tensor", draw(st.sampled_from(NUMERIC)), shape))]
        if draw(st.integers(0, 3)) == 0:
            more = draw(st.sampled_from([("mask", "BOOL"), ("labels", "INT64"), ("boxes", "FP64"), ("p", "FP32")]))
            inputs.append(draw(tensors(*more, shape)))
        document["parameters"] = {"op": draw(st.sampled_from(sorted(CATALOGUE))), **draw(own)}
        found = ["tensor", "tensor", "indices"]
    document["inputs"] = [tensor for tensor, _ in inputs]
    if draw(st.booleans()):
        wanted = st.fixed_dictionaries({}, optional={"binary_data": st.booleans(), "classification": st.integers(1, 9)})
        chosen = draw(st.lists(st.sampled_from(found), max_size=2, unique=True))
        document["outputs"] = [{"name": name, "parameters": draw(wanted)} for name in chosen]
    return model, document, b"".join(buffer for _, buffer in inputs)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document: what holds it, and its name or number there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in list(items):
        yield value, name
        yield from places(item)


def mutate(document: dict[str, Any], data: st.DataObject) -> None:
    """Change one place to anything, leave it out, or have it twice."""
    found = list(places(document))
    if not found:
        return
    holder, name = data.draw(st.sampled_from(found), "place")
    change = data.draw(st.sampled_from(["anything", "number", "remove", "twice"]), "change")
    if change == "remove":
        del holder[name]
    elif change == "twice" and isinstance(holder, list):
        holder.append(holder[name])
    elif change == "number":
        holder[name] = data.draw(sizes, "number")
    else:
        holder[name] = data.draw(anything, "anything")


@pytest.fixture(scope="module")
def client(model_folder: Path) -> Iterator[TestClient]:
    made = Settings.model_validate({"models": model_folder, "max_tensor_elements": 10**6, "max_pool_cells": 10**6})
    with TestClient(create_app(made, Repository.load(made)), raise_server_exceptions=False) as client:
        yield client


def assert_answered(client: TestClient, model: str, body: bytes, headers: dict[str, str]) -> None:
    response = client.post(f"/v2/models/{model}/infer", content=body, headers=headers)
    assert response.status_code in {200, 400, 413, 415, 504}, (response.status_code, response.text)
    if response.status_code != 200:
        assert set(response.json()) == {"error", "code", "request_id"}
        return
    length = response.headers.get(LENGTH)
    document = json.loads(response.content[: None if length is None else int(length)])
    behind = sum(output.get("parameters", {}).get("binary_data_size", 0) for output in document["outputs"])
    assert behind == (0 if length is None else len(response.content) - int(length))


@ONE
@given(request=requests(), changes=st.sampled_from([0, 1, 1, 1, 2]), data=st.data())
def test_documents_that_are_nearly_right(
    client: TestClient, request: tuple[str, dict[str, Any], bytes], changes: int, data: st.DataObject
) -> None:
    model, document, tail = copy.deepcopy(request)
    for _ in range(changes):
        mutate(document, data)
    text = json.dumps(document).encode()
    headers = {}
    if tail or data.draw(st.integers(0, 9), "with a tail") == 0:
        shift = data.draw(st.sampled_from([0] * 9 + [1, -1]), "shift")
        headers[LENGTH] = str(len(text) + shift)
        text += tail
    if data.draw(st.integers(0, 5), "gzip") == 0:
        headers["Content-Encoding"] = "gzip"
        text = gzip.compress(text)
    assert_answered(client, model, text, headers)


@ONE
@given(
    model=st.sampled_from(["colour", "pool"]),
    body=st.binary(min_size=1, max_size=200),
    headers=st.fixed_dictionaries(
        {},
        optional={
            LENGTH: st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6)
            | st.integers(-1, 250).map(str),
            "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "identity", ""]),
        },
    ),
)
def test_any_bytes(client: TestClient, model: str, body: bytes, headers: dict[str, str]) -> None:
    assert_answered(client, model, body, headers)


@ONE
@given(place=st.floats(0, 1, exclude_max=True), change=st.binary(max_size=3), cut=st.integers(0, 3))
def test_good_requests_with_a_few_bytes_changed(client: TestClient, place: float, change: bytes, cut: int) -> None:
    inputs = [
        {"name": "tensor", "shape": [2, 3], "datatype": "FP16", "parameters": {"binary_data_size": 12}},
        {"name": "mask", "shape": [2, 3], "datatype": "BOOL", "data": [[True, False, True], [True, True, True]]},
    ]
    asked = {
        "id": "a",
        "inputs": inputs,
        "parameters": {"op": "max", "return_indices": True, "binary_data_output": True},
    }
    text = json.dumps(asked).encode()
    body = text + bytes(12)
    start = int(place * len(body))
    assert_answered(client, "pool", body[:start] + change + body[start + cut :], {LENGTH: str(len(text))})

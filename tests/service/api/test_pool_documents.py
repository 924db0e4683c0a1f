"""The catalogue over HTTP, and what the OpenAPI document says of the tensor endpoints."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from graphs.operators.catalogue import CATALOGUE
from graphs.operators.request import RegionParameters
from service.api.accept import MEDIA_TYPES
from service.runtime.pooling.unpool import UnpoolParameters
from tests.claims import assert_error

PATHS = ("/v1/pool", "/v1/pool/gradient", "/v1/unpool")


def operation(client: TestClient, path: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()["paths"][path]["post"]
    return found


def test_catalogue_is_listed_whole(client: TestClient) -> None:
    body = client.get("/v1/pool/operators").json()
    assert [page["name"] for page in body["operators"]] == list(CATALOGUE)
    for page in body["operators"]:
        operator = CATALOGUE[page["name"]]
        assert page["formula"] == operator.formula
        assert set(page["parameters"].get("properties", {})) == set(operator.parameters.model_fields)
        assert page["differentiable"] == operator.differentiable
        assert len(page["references"]) == len(operator.references)
    assert set(body["regions"]["properties"]) == set(RegionParameters.model_fields)


def test_catalogue_by_name_and_family(client: TestClient) -> None:
    (page,) = client.get("/v1/pool/operators?name=max").json()["operators"]
    assert page["name"] == "max"
    pages = client.get(f"/v1/pool/operators?family={page['family']}").json()["operators"]
    assert {other["family"] for other in pages} == {page["family"]}
    assert "max" in [other["name"] for other in pages]
    assert_error(client.get("/v1/pool/operators?name=maxx"), 422, "invalid_parameter", "name", "nearest", "max")
    assert_error(client.get("/v1/pool/operators?family=x"), 422, "invalid_parameter", "family")
    assert_error(client.get("/v1/pool/operators?kind=x"), 422, "invalid_parameter", "'kind'", "name, family")
    assert_error(client.post("/v1/pool/operators"), 405, "method_not_allowed", "GET")


@pytest.mark.parametrize("path", PATHS)
def test_examples_in_the_document_work(client: TestClient, path: str) -> None:
    said = operation(client, path)
    examples = said["requestBody"]["content"]["application/json"]["examples"]
    answers = [client.post(path, json=example["value"]) for example in examples.values()]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    assert answers[0].json() == said["responses"]["200"]["content"]["application/json"]["example"]


@pytest.mark.parametrize("path", PATHS)
def test_every_parameter_is_documented(client: TestClient, path: str) -> None:
    said = operation(client, path)
    query = {parameter["name"] for parameter in said["parameters"] if parameter["in"] == "query"}
    if path == "/v1/unpool":
        own = {"indices", *UnpoolParameters.model_fields}
        assert query == {"op", "shape", "dtype", "compare", *own}
    else:
        own = {name for operator in CATALOGUE.values() for name in operator.parameters.model_fields}
        assert query >= {"op", "shape", "dtype", "compare", *RegionParameters.model_fields, *own}
    content = said["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "application/x-npy",
        "application/x-npz",
        "multipart/form-data",
        "application/octet-stream",
        "image/*",
    }
    assert set(content["application/json"]["schema"]["properties"]) >= {"op", "ops", "tensor", *own}
    assert ("grad_output" in query, "indices" in query) == (path == "/v1/pool/gradient", path == "/v1/unpool")


def test_what_is_said_of_unpool_is_what_it_takes(client: TestClient) -> None:
    """Every operator that the document lists, and no parameter that the endpoint does not know."""
    content = operation(client, "/v1/unpool")["requestBody"]["content"]
    document = content["application/json"]["schema"]["properties"]
    assert set(document) == {"op", "ops", "tensor", "dtype", "indices", *UnpoolParameters.model_fields}
    assert set(content["multipart/form-data"]["schema"]["properties"]) == set(document) - {"ops", "dtype"} | {"image"}
    assert document["op"]["enum"] == ["max", "avg", "sum", "nearest"]
    for op in document["op"]["enum"]:
        more = {"indices": [[1]]} if op == "max" else {}
        asked = {"op": op, "tensor": [[4.0]], "output_size": [1, 2], **more}
        answer = client.post("/v1/unpool", json=asked)
        assert answer.status_code == 200, answer.text
        expected = {"max": [[0, 4]], "avg": [[4, 4]], "sum": [[2, 2]], "nearest": [[4, 4]]}
        assert answer.json()["tensor"] == expected[op]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_documented(client: TestClient, path: str) -> None:
    responses = operation(client, path)["responses"]
    assert set(responses) == {"200", "400", "406", "408", "413", "415", "422", "429", "500", "504"}
    assert set(responses["200"]["content"]) == set(MEDIA_TYPES.values())
    for status, response in responses.items():
        if status != "200":
            assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}


@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_refused(client: TestClient, path: str) -> None:
    assert_error(client.get(path), 405, "method_not_allowed", "expected POST here, got GET")

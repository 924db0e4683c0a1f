"""The application: one error shape everywhere, documents that match, pages that need no internet."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from service import errors
from service.api.documents import concrete
from service.errors import Overloaded, ServiceError
from tests.claims import assert_error
from tests.conftest import MakeClient

EVERY_ERROR = list(concrete(ServiceError))[1:]  # the root is never raised


def test_error_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d{3})", errors.__doc__ or ""))
    classes = {name: str(kind.status) for name, kind in vars(errors).items() if isinstance(kind, type)}
    del classes["ServiceError"]
    assert drawn == classes
    slugs = set(re.findall(r"\d{3}  (\w+)", errors.__doc__ or ""))
    assert slugs == {kind.code for kind in EVERY_ERROR}


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.code)
def test_every_error_has_one_shape(
    make_client: MakeClient, kind: type[ServiceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"InternalError": (), "Overloaded": ("too much", 7)}.get(kind.__name__, ("expected this, got that",))

    def fail(*_: object) -> None:
        raise kind(*arguments)

    client = make_client()
    monkeypatch.setattr(client.app.state.poolserve.repository, "find", fail)  # type: ignore[attr-defined]
    response = client.post("/v1/classify?model=colour", content=b"x")
    assert_error(response, kind.status, kind.code)
    assert ("retry-after" in response.headers) == issubclass(kind, Overloaded)


def test_unknown_exception_is_a_500_without_its_text(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(client.app.state.poolserve.repository, "find", fail)  # type: ignore[attr-defined]
    response = client.post("/v1/classify", content=b"x")
    assert_error(response, 500, "internal")
    assert "secret" not in response.text


def test_unknown_path_and_wrong_method(client: TestClient) -> None:
    assert_error(client.get("/nope"), 404, "not_found", "/docs")
    response = client.get("/v1/classify")
    assert_error(response, 405, "method_not_allowed", "expected POST here, got GET")
    assert response.headers["allow"] == "POST"


def test_head_is_get_without_the_body(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = [path for path, operations in document["paths"].items() if "get" in operations]
    assert len(paths) > 10
    assert not any("head" in operations for operations in document["paths"].values())
    for template in (
        *paths,
        "/openapi.json",
        "/docs",
        "/health/live?x=1",
        "/v1/models?x=1",
        "/v1/models/nobody",
        "/nope",
    ):
        path = template.replace("{name}", "colour").replace("{version}", "1")
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        changing = {"x-request-id", "content-length"}  # errors, statistics and metrics say numbers that change
        assert {name: head.headers[name] for name in head.headers if name not in changing} == {
            name: got.headers[name] for name in got.headers if name not in changing
        }
        assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/pool", "/v2/models/colour/infer", "/v2/repository/index"])
def test_head_of_what_has_no_get(client: TestClient, path: str) -> None:
    response = client.head(path)
    assert (response.status_code, response.content, response.headers["allow"]) == (405, b"", "POST")


def test_methods_that_are_refused_are_told_what_would_do(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        response = client.request(method, "/health/live")
        assert_error(response, 405, "method_not_allowed", f"expected GET, HEAD here, got {method}")
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/v1/pool/", "/v1/classify/", "/health/live/", "/v2/", "/v1/models/colour/"])
def test_a_slash_too_many_is_no_endpoint_and_no_redirect(client: TestClient, path: str) -> None:
    for method in ("GET", "POST"):
        response = client.request(method, path, headers={"Host": "elsewhere.example"}, follow_redirects=False)
        assert_error(response, 404, "not_found", "/docs")
        assert "location" not in response.headers


def test_documented_errors_are_those_of_the_classes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    responses = document["paths"]["/v1/classify"]["post"]["responses"]
    assert set(responses) == {"200", "400", "404", "408", "413", "415", "422", "429", "500", "504"}
    for status, response in responses.items():
        if status != "200":
            assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
    for slug in ("unsupported_media_type", "unsupported_encoding"):
        assert slug in responses["415"]["description"]
    for slug in ("invalid_image", "invalid_parameter"):
        assert slug in responses["422"]["description"]
    assert "Retry-After" in responses["429"]["headers"]


def test_example_in_the_document_works(client: TestClient) -> None:
    content = client.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert {"image/png", "application/octet-stream", "multipart/form-data", "application/json"} <= set(content)
    example = content["application/json"]["example"]
    assert client.post("/v1/classify?model=grey", json=example).status_code == 200


def test_docs_need_no_internet(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert client.get(source).status_code == 200


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    client.app.state.poolserve.draining = True  # type: ignore[attr-defined]
    assert_error(client.get("/health/ready"), 503, "not_ready", "stopping")
    assert client.get("/health/live").status_code == 200


def test_models_show_their_cards_and_where_they_run(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["models"]
    assert [(page["name"], page["version"], page["state"]) for page in listed] == [
        ("colour", "1", "ready"),
        ("grey", "3", "ready"),
    ]
    page = client.get("/v1/models/grey").json()
    assert page == listed[1]
    assert (page["provider"], page["device"], page["classes"], page["minimum_size"]) == ("cpu", "cpu", 3, [1, 1])
    assert page["card"]["preprocessing"]["channels"] == "L"
    assert page["card"]["labels"] == ["cat", "dog", "bird"]
    assert_error(client.get("/v1/models?page=2"), 422, "invalid_parameter", "unknown parameter 'page'; known are: none")
    assert_error(client.get("/v1/models/grey?x="), 422, "invalid_parameter", "unknown parameter 'x'")
    assert_error(client.get("/v1/models/gray"), 404, "model_not_found", "did you mean grey")


def test_openapi_document_is_valid_and_documents_every_route(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/v1/classify",
        "/v1/embed",
        "/v1/heatmap",
        "/v1/pool",
        "/v1/pool/gradient",
        "/v1/pool/operators",
        "/v1/unpool",
        "/v1/models",
        "/v1/models/{name}",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/stats",
        *(
            f"/v2/models/{{name}}{version}{of}"
            for version in ("", "/versions/{version}")
            for of in ("", "/ready", "/config", "/stats", "/infer")
        ),
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path

"""The repository over /v2 where model control is `explicit`: loading, unloading, the index, versions on every page."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.tiny import TinyClassifier, card

CARD = card(preprocessing={"scale": 1.0})


def save(folder: Path, version: int, name: str = "tiny") -> None:
    TinyClassifier.random(version).save(folder / name / str(version), CARD)


def change(client: TestClient, what: str, name: str = "tiny", **parameters: Any) -> Any:
    document = {"parameters": parameters} if parameters else None
    return client.post(f"/v2/repository/models/{name}/{what}", json=document)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def index(client: TestClient) -> list[tuple[str, str | None, str]]:
    rows = client.post("/v2/repository/index").json()
    return [(row["name"], row.get("version"), row["state"]) for row in rows if row["name"] != "pool"]


def answers_as(client: TestClient, version: int, path: str = "/v2/models/tiny", seed: int = 0) -> bool:
    """Whether an answer names a version and has its numbers."""
    image = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    tensor = {"name": "images", "shape": [1, *image.shape], "datatype": "UINT8", "data": image.ravel().tolist()}
    answer = client.post(f"{path}/infer", json={"inputs": [tensor], "outputs": [{"name": "logits"}]})
    assert answer.status_code == 200, answer.text
    expected = TinyClassifier.random(version).logits(image, CARD.preprocessing)
    found = np.array(answer.json()["outputs"][0]["data"])
    return answer.json()["model_version"] == str(version) and relative_error(found, expected) <= 1e-5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.fixture
def explicit(make_client: MakeClient, folder: Path) -> TestClient:
    return make_client(models=folder, model_control="explicit")


def test_model_is_loaded_swapped_and_unloaded(explicit: TestClient, folder: Path) -> None:
    assert index(explicit) == [("tiny", None, "UNAVAILABLE")]
    assert_error(explicit.get("/v2/models/tiny/ready"), 404, "model_not_found")
    assert explicit.get("/v2/health/ready").status_code == 200
    answer = change(explicit, "load")
    assert (answer.status_code, answer.content) == (200, b"")
    assert index(explicit) == [("tiny", "1", "READY")]
    assert answers_as(explicit, 1)
    classify = "/v1/classify?shape=5,5,3&dtype=uint8"
    assert explicit.post(classify, content=bytes(75)).json()["version"] == "1"
    save(folder, 2)
    assert change(explicit, "load").status_code == 200
    assert answers_as(explicit, 2)
    assert explicit.post(classify, content=bytes(75)).json()["version"] == "2"  # the same query, remembered or not
    assert_error(explicit.get("/v2/models/tiny/versions/1"), 404, "model_not_found", "loaded is: 2")
    answer = change(explicit, "unload", unload_dependents=True)
    assert (answer.status_code, answer.content) == (200, b"")
    assert_error(explicit.post(classify, content=bytes(75)), 404, "model_not_found", "loaded are: none")
    assert ("tiny", "2", "READY") not in index(explicit)


def test_all_versions_are_on_every_page(make_client: MakeClient, folder: Path) -> None:
    save(folder, 10)
    client = make_client(models=folder, version_policy="latest:2")
    assert client.get("/v2/models/tiny").json()["versions"] == ["1", "10"]
    assert client.get("/v2/models").json()["models"] == ["tiny", "pool"]
    assert client.get("/v2/models/tiny/config").json()["version_policy"] == {"latest": {"num_versions": 2}}
    assert answers_as(client, 10)
    assert answers_as(client, 1, "/v2/models/tiny/versions/1")
    statistics = client.get("/v2/models/stats").json()["model_stats"]
    assert [(page["name"], page["version"], page["inference_count"]) for page in statistics] == [
        ("tiny", "10", 1),
        ("tiny", "1", 1),
        ("pool", "1", 0),
    ]
    pages = client.get("/v1/models").json()["models"]
    assert [(page["name"], page["version"], page["state"]) for page in pages] == [
        ("tiny", "1", "ready"),
        ("tiny", "10", "ready"),
    ]
    assert client.get("/v1/models/tiny").json()["version"] == "10"
    assert client.get("/v1/models/tiny?version=1").json()["version"] == "1"
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = {tuple(sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert samples["tiny", "ready"] == 2
    assert samples["tiny", "loaded"] == 2
    assert samples["plain", "tiny", "1"] + samples["plain", "tiny", "10"] == 2


def test_load_that_fails_is_a_400_with_the_reason_and_changes_nothing(explicit: TestClient, folder: Path) -> None:
    assert change(explicit, "load").status_code == 200
    (folder / "tiny" / "2").mkdir()
    (folder / "tiny" / "2" / "model.onnx").write_bytes(b"junk")
    answer = change(explicit, "load")
    assert_error(answer, 400, "malformed", "version 2: model.onnx: not a readable ONNX file")
    assert str(folder) not in answer.text
    assert index(explicit) == [("tiny", "1", "READY"), ("tiny", "2", "UNAVAILABLE")]
    assert answers_as(explicit, 1)
    families = text_string_to_metric_families(explicit.get("/metrics").text)
    samples = {tuple(sample.labels.values()): sample.value for family in families for sample in family.samples}
    assert samples["tiny", "failed"] == 1
    assert samples["tiny", "2"] == 1  # poolserve_model_broken


def test_a_model_comes_with_the_request(explicit: TestClient, folder: Path) -> None:
    sent = TinyClassifier.random(7).to_onnx(None).SerializeToString()
    given = {"file:7/model.onnx": encoded(sent), "file:7/model.json": encoded(CARD.model_dump_json().encode())}
    answer = change(explicit, "load", config=json.dumps({"max_batch_size": 4}), **given)
    assert answer.status_code == 200, answer.text
    assert answers_as(explicit, 7)
    assert explicit.get("/v2/models/tiny/config").json()["max_batch_size"] == 4
    assert change(explicit, "load").status_code == 200  # what lies in the repository again
    assert answers_as(explicit, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["tiny"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", 'expected nothing or {"parameters": {…}}: JSON: expected an object in UTF-8, got truncated'),
        (b'{"parameters": {}, "parameters": {}}', "parameters is there twice"),
        (b'{"parameters": {"config": "{}", "config": "{}"}}', "parameters.config is there twice"),
        (
            b'{"parameters": {"config": "{\\"name\\": \\"tiny\\", \\"name\\": \\"tiny\\"}"}}',
            "not a readable configuration",
        ),
        (b'{"parameters": {"config": "[]"}}', "not a readable configuration: expected an object"),
        (b'{"parameters": {"config": ""}}', "not a readable configuration: expected an object"),
        (b"[]", "expected nothing or"),
        (b'{"parameters": []}', "expected nothing or"),
        (b'{"parameter": {}}', "expected nothing or"),
        (b'{"parameters": {"config": {}}}', "expected a string"),
        (b'{"parameters": {"config": "{"}}', "not a readable configuration"),
        (b'{"parameters": {"config": "{}", "other": "x"}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:1/../../model.onnx": "eA=="}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:1/..": "eA=="}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:/etc/passwd": "eA=="}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:01/model.onnx": "eA=="}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:1/a/b": "eA=="}}', "expected config, or a file"),
        (b'{"parameters": {"config": "{}", "file:1/model.onnx": "e"}}', "got 1 characters, which is no multiple of 4"),
        (b'{"parameters": {"config": "{}", "file:1/model.onnx": "e-A="}}', "got other characters"),
        (b'{"parameters": {"file:1/model.onnx": "eA=="}}', "config: expected with files"),
        (b'{"parameters": {"config": "{}", "file:1/model.onnx": "eA=="}}', "version 1: model.onnx"),
    ],
)
def test_requests_to_load_are_checked(explicit: TestClient, content: bytes, said: str) -> None:
    answer = explicit.post("/v2/repository/models/tiny/load", content=content)
    assert_error(answer, 400, "malformed", said)
    assert change(explicit, "load").status_code == 200


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"parameters": {"unload_dependents": 1}}', b'{"parameters": {"x": 1}}']
)
def test_requests_to_unload_are_checked(explicit: TestClient, content: bytes) -> None:
    assert change(explicit, "load").status_code == 200
    assert_error(
        explicit.post("/v2/repository/models/tiny/unload", content=content), 400, "malformed", "expected nothing"
    )
    assert answers_as(explicit, 1)


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e", "a%2Fb", "x" * 200, "pool"])
def test_models_that_the_repository_does_not_have_are_404(explicit: TestClient, name: str) -> None:
    for what in ("load", "unload"):
        assert explicit.post(f"/v2/repository/models/{name}/{what}").status_code == 404


@pytest.mark.parametrize("control", ["none", "poll"])
def test_loading_is_refused_where_nobody_asked_for_it(make_client: MakeClient, folder: Path, control: str) -> None:
    client = make_client(models=folder, model_control=control)
    for what in ("load", "unload"):
        answer = client.post(f"/v2/repository/models/tiny/{what}", content=b"junk")
        assert_error(answer, 403, "forbidden", f"model control is {control}, not explicit")
    assert answers_as(client, 1)

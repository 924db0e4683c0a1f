"""The protocol's pages: health, models, configuration, statistics, repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.tiny import TinyClassifier, card

PIXELS = {"name": "images", "shape": [1, 3, 3, 3], "datatype": "UINT8", "data": [7] * 27}
INFER = "/v2/models/colour/infer"


def statistics(client: TestClient) -> dict[str, Any]:
    (page,) = client.get("/v2/models/colour/stats").json()["model_stats"]
    return dict(page)


def test_ready_turns_with_the_draining(client: TestClient) -> None:
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/colour/ready").json() == {"name": "colour", "ready": True}
    client.app.state.poolserve.draining = True  # type: ignore[attr-defined]
    for path in ("/v2/health/ready", "/v2/models/colour/ready", "/v2/models/pool/versions/1/ready"):
        assert_error(client.get(path), 503, "not_ready")
    assert client.get("/v2/health/live").json() == {"live": True}


@pytest.mark.parametrize("of", ["", "/ready", "/config", "/stats"])
def test_unknown_models_and_versions_are_404(client: TestClient, of: str) -> None:
    for path in ("nobody", "colour/versions/2", "pool/versions/2", "colour/versions/x"):
        assert_error(client.get(f"/v2/models/{path}{of}"), 404, "model_not_found")
    for path in ("colour", "colour/versions/1", "pool", "pool/versions/1"):
        assert client.get(f"/v2/models/{path}{of}").status_code == 200


def test_other_paths_and_verbs(client: TestClient) -> None:
    for path in ("/v2/nope", "/v2/models/colour/generate", "/v2/repository/a/index", "/v2/trace/setting"):
        assert_error(client.get(path), 404, "not_found")
    for method, path in (("GET", INFER), ("PUT", INFER), ("POST", "/v2"), ("GET", "/v2/repository/index")):
        assert_error(client.request(method, path), 405, "method_not_allowed")


def test_sizes_that_the_graph_fixes_are_in_the_metadata(make_client: MakeClient, tmp_path: Path) -> None:
    TinyClassifier.random(1).save(tmp_path / "fixed" / "1", card(), size=(12, 16), batch=4)
    client = make_client(models=tmp_path)
    assert client.get("/v2/models/fixed").json()["inputs"][0]["shape"] == [-1, 12, 16, 3]
    assert client.get("/v2/models/fixed/config").json()["input"][0]["dims"] == [12, 16, 3]


def test_statistics_count_by_batch(client: TestClient) -> None:
    assert statistics(client)["last_inference"] == 0
    three = {**PIXELS, "shape": [3, 3, 3, 3], "data": [7] * 81}
    for document in ({"inputs": [PIXELS]}, {"inputs": [three]}):
        assert client.post(INFER, json=document).status_code == 200
    assert client.post(INFER, json={"inputs": []}).status_code == 400
    assert client.post(INFER, content=b"{").status_code == 400
    page = statistics(client)
    assert page["inference_count"] == 4
    assert page["inference_stats"]["success"]["count"] == 2
    assert page["inference_stats"]["fail"]["count"] == 2
    runs = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in page["batch_stats"]}
    assert sum(size * count for size, count in runs.items()) == 4
    assert page["execution_count"] == sum(runs.values())
    stages = page["inference_stats"]
    assert stages["success"]["ns"] >= stages["compute_infer"]["ns"] > 0
    (others,) = client.get("/v2/models/grey/stats").json()["model_stats"]
    assert others["inference_count"] == 0


def test_index_lists_what_is_broken(make_client: MakeClient, tmp_path: Path) -> None:
    TinyClassifier.random(1).save(tmp_path / "good" / "4", card())
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"junk")
    client = make_client(models=tmp_path, skip_broken_models=True)
    index = client.post("/v2/repository/index").json()
    bad, good, pool = index
    assert good == {"name": "good", "version": "4", "state": "READY", "reason": ""}
    assert (bad["name"], bad["version"], bad["state"]) == ("bad", "1", "UNAVAILABLE")
    assert bad["reason"].startswith("model.onnx: not a readable ONNX file")
    assert str(tmp_path) not in bad["reason"]
    assert pool == {"name": "pool", "version": "1", "state": "READY", "reason": ""}
    assert {entry["name"] for entry in client.post("/v2/repository/index", json={"ready": True}).json()} == {
        "good",
        "pool",
    }
    assert len(client.post("/v2/repository/index", json={"ready": False}).json()) == 3
    for content in (b'{"ready": 1}', b"[]", b"{", b"null"):
        assert_error(client.post("/v2/repository/index", content=content), 400, "malformed", '{"ready": true}')


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize("name", ["colour", "nobody"])
def test_loading_is_refused_whatever_is_sent(client: TestClient, action: str, name: str) -> None:
    path = f"/v2/repository/models/{name}/{action}"
    for content in (b"", b'{"parameters": {"config": "{}"}}', b"junk"):
        assert_error(client.post(path, content=content), 403, "forbidden", "model control is none")
    assert client.get("/v2/models/colour/ready").status_code == 200


@pytest.mark.parametrize("name", ["pool", "stats"])
def test_no_model_takes_a_name_of_the_protocol(tmp_path: Path, name: str) -> None:
    TinyClassifier.random(1).save(tmp_path / name / "1", card())
    with pytest.raises(RepositoryError, match=f"no model can be called {name}"):
        Repository.load(Settings.model_validate({"models": tmp_path}))

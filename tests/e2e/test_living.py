"""A repository that changes under a real server: by Triton's own client, by files that are copied in and out, and under load."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from rich.progress import Progress
from tritonclient.utils import InferenceServerException

from benchmarks import soak
from tests.claims import relative_error
from tests.e2e.server import Server, run_to_its_end, serve
from tests.tiny import TinyClassifier, card

CARD = card(preprocessing={"scale": 1.0})


def save(folder: Path, version: int, name: str = "tiny") -> None:
    TinyClassifier.random(version).save(folder / name / str(version), CARD)


class Client:
    """Either client, called the same way."""

    def __init__(self, client: Any, run: Callable[[Any], Any]) -> None:
        self._client = client
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(getattr(self._client, name)(*args, **kwargs))

    def is_answered_by(self, version: int, image: np.ndarray) -> bool:
        tensor = triton.InferInput("images", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[None])
        result = self.infer("tiny", [tensor])
        found = result.as_numpy("logits")[0]
        error = relative_error(found, TinyClassifier.random(version).logits(image, CARD.preprocessing))
        return result.get_response()["model_version"] == str(version) and error <= 1e-5


@pytest.fixture(params=["sync", "asyncio"])
def explicit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """A server whose model control is explicit, a client, and the server's repository."""
    folder = tmp_path / "models"
    save(folder, 1)
    flags = ("--models", str(folder), "--model-control", "explicit", "--drain-s", "0")
    with serve(tmp_path / "server.log", *flags, TMPDIR=str(tmp_path)) as server, asyncio.Runner() as runner:
        address = f"127.0.0.1:{server.port}"

        async def make() -> Any:
            return triton_aio.InferenceServerClient(address)

        def wait(found: Awaitable[Any]) -> Any:
            async def waited() -> Any:
                return await found

            return runner.run(waited())

        if request.param == "sync":
            client = Client(triton.InferenceServerClient(address), lambda value: value)
        else:
            client = Client(runner.run(make()), wait)
        yield client, folder
        client.close()


def test_tritonclient_loads_and_unloads(explicit: tuple[Client, Path], rng: np.random.Generator) -> None:
    client, folder = explicit
    image = rng.integers(0, 256, (11, 6, 3), np.uint8)

    def states() -> dict[tuple[str, str | None], str]:
        return {(row["name"], row.get("version")): row["state"] for row in client.get_model_repository_index()}

    assert client.is_server_ready()
    assert not client.is_model_ready("tiny")
    assert states()["tiny", None] == "UNAVAILABLE"
    client.load_model("tiny")
    assert client.is_model_ready("tiny")
    assert states()["tiny", "1"] == "READY"
    assert client.is_answered_by(1, image)
    save(folder, 2)
    client.load_model("tiny", config=json.dumps({"versionPolicy": {"all": {}}}))
    assert client.is_model_ready("tiny", "1")
    assert client.is_model_ready("tiny", "2")
    assert client.get_model_metadata("tiny")["versions"] == ["1", "2"]
    assert client.get_model_config("tiny")["version_policy"] == {"all": {}}
    assert client.is_answered_by(2, image)
    sent = {
        "file:5/model.onnx": TinyClassifier.random(5).to_onnx(None).SerializeToString(),
        "file:5/model.json": CARD.model_dump_json().encode(),
    }
    client.load_model("tiny", config="{}", files=sent)
    assert client.is_answered_by(5, image)
    assert not client.is_model_ready("tiny", "2")
    with pytest.raises(InferenceServerException, match=r"version 6: model\.onnx"):
        client.load_model("tiny", config="{}", files={"file:6/model.onnx": b"junk"})
    with pytest.raises(InferenceServerException, match="config: expected with files"):
        client.load_model("tiny", files={"file:5/model.onnx": b"junk"})
    assert client.is_answered_by(5, image)
    with pytest.raises(InferenceServerException, match="no such model"):
        client.load_model("nobody")
    client.unload_model("tiny", unload_dependents=True)
    assert not client.is_model_ready("tiny")
    with pytest.raises(InferenceServerException, match="no such model"):
        client.is_answered_by(5, image)
    client.load_model("tiny")
    assert client.is_answered_by(2, image)


def test_server_follows_files_that_are_copied_in_and_out(tmp_path: Path, rng: np.random.Generator) -> None:
    folder, shop = tmp_path / "models", tmp_path / "shop"
    for version in (1, 2, 3):
        save(shop, version)
    folder.mkdir()
    image = rng.integers(0, 256, (5, 5, 3), np.uint8)

    def ask(server: Server) -> httpx2.Response:
        return httpx2.post(server.url + "/v1/classify?shape=5,5,3&dtype=uint8", content=image.tobytes())

    def wait_for(server: Server, said: Callable[[], bool]) -> None:
        while not said():
            assert server.process.poll() is None

    flags = ("--models", str(folder), "--model-control", "poll", "--poll-s", "0.05")
    with serve(tmp_path / "log", *flags, TMPDIR=str(tmp_path)) as server:
        assert ask(server).status_code == 404
        shutil.copytree(shop / "tiny" / "1", folder / "tiny" / "1")
        wait_for(server, lambda: ask(server).status_code == 200)
        shutil.copytree(shop / "tiny" / "2", folder / "tiny" / "2")
        shutil.rmtree(folder / "tiny" / "1")
        wait_for(server, lambda: ask(server).json()["version"] == "2")
        (folder / "tiny" / "3").mkdir()
        (folder / "tiny" / "3" / "model.onnx").write_bytes(b"half of a file")
        wait_for(server, lambda: "tiny/3 is broken" in server.log.read_text())
        assert ask(server).json()["version"] == "2"
        shutil.copy(shop / "tiny" / "3" / "model.onnx", folder / "tiny" / "3")
        wait_for(server, lambda: ask(server).json()["version"] == "3")
        shutil.rmtree(folder / "tiny" / "3")
        wait_for(server, lambda: ask(server).json()["version"] == "2")
        folder.rename(tmp_path / "elsewhere")
        assert ask(server).status_code == 200  # a folder that cannot be read takes nothing away
        folder.mkdir()
        wait_for(server, lambda: ask(server).status_code == 404)


def test_swaps_under_load_fail_nobody_and_mix_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short soak: 32 clients by every road, a new version each second; all answers are right for the version they name."""
    monkeypatch.setattr(soak, "EVERY_S", 1.0)
    monkeypatch.setattr(soak, "POLL_S", 0.1)
    with Progress(disable=True) as progress:
        found = soak.soak(8.0, progress)
    assert not found.failed
    assert (found.wrong, found.stale) == (0, 0)
    assert len(found.seen) >= 4
    assert len(found.took_s) == 7


def test_a_thousand_loads_and_unloads_while_others_ask_mix_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    folder, image = tmp_path / "models", rng.integers(0, 256, (5, 5, 3), np.uint8)
    right, mild = {}, card(preprocessing={"scale": 1 / 2550})
    for version in (1, 2):
        TinyClassifier.random(version).save(folder / "tiny" / str(version), mild)
        e = np.exp(TinyClassifier.random(version).logits(image, mild.preprocessing))
        right[str(version)] = e / e.sum()
    assert relative_error(right["1"], right["2"]) > 0.01
    loads: list[dict[str, Any]] = [
        {"parameters": {"config": json.dumps({"version_policy": {"specific": {"versions": [version]}}})}}
        for version in (1, 2)
    ]
    changes, answers = Counter[int](), Counter[tuple[int, str]]()

    async def storm(url: str) -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=60, limits=httpx2.Limits(max_connections=48)) as client:
            over = asyncio.Event()

            async def change() -> None:
                # Most are refused, so that no thousand of them is sure to have had both versions answer.
                while changes.total() < 1000 or not {(200, "1"), (200, "2")} <= set(answers):
                    kind = int(rng.integers(0, 3))
                    road = "unload" if kind == 2 else "load"
                    body = {} if kind == 2 else loads[kind]
                    answer = await client.post(f"/v2/repository/models/tiny/{road}", json=body)
                    changes[answer.status_code] += 1

            async def look() -> None:
                while not over.is_set():
                    answer = await client.post(
                        "/v1/classify?model=tiny&shape=5,5,3&dtype=uint8&top=9", content=image.tobytes()
                    )
                    document = answer.json()
                    answers[answer.status_code, document.get("version", "")] += 1
                    if answer.status_code == 200:
                        p = {row["index"]: row["probability"] for row in document["results"][0]["predictions"]}
                        found = np.array([p[index] for index in range(len(p))])
                        assert relative_error(found, right[document["version"]]) <= 1e-5

            looking = [asyncio.ensure_future(look()) for _ in range(8)]
            await asyncio.gather(*(change() for _ in range(32)))
            over.set()
            await asyncio.gather(*looking)
            assert (await client.post("/v2/repository/models/tiny/load", json=loads[1])).status_code == 200
            last = await client.post("/v1/classify?model=tiny&shape=5,5,3&dtype=uint8", content=image.tobytes())
            assert (last.status_code, last.json()["version"]) == (200, "2")

    flags = ("--models", str(folder), "--model-control", "explicit", "--drain-s", "0")
    with serve(tmp_path / "log", *flags, TMPDIR=str(tmp_path)) as server:
        asyncio.run(storm(server.url))
    assert set(changes) == {200, 429}  # at most 16 wait for their turn
    assert set(answers) <= {(200, "1"), (200, "2"), (404, "")}
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model-control", "explicit", "--workers", "2"), "workers: expected 1 with model_control=explicit"),
        (("--load-models", "digits"), "load_models: only with model_control=explicit"),
        (("--version-policy", "newest"), "version_policy: "),
        (("--model-control", "explicit", "--load-models", "nobody"), "nobody: load_models names it"),
    ],
)
def test_settings_that_do_not_fit_are_refused(flags: tuple[str, ...], said: str) -> None:
    ended = run_to_its_end(*flags)
    assert ended.returncode == 1
    assert said in ended.stderr

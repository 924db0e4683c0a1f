"""The mirror of a repository behind a URL: what is brought, what is not brought twice, and no half of a version at any time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.runtime.folder import find_models
from service.runtime.policy import VersionPolicy
from service.runtime.reading import read_model
from service.runtime.remote import Mirror
from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.claims import relative_error
from tests.service.runtime.bucket import GRAPH, Store, files
from tests.tiny import LABELS, TinyClassifier, card


@pytest.fixture
def fetched(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is copied, as it is."""
    names: list[str] = []
    get = MemoryFileSystem.get_file

    def noted(self: Store, name: str, *arguments: Any, **options: Any) -> None:
        names.append(name.removeprefix("/bucket/models/"))
        get(self, name, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "get_file", noted)
    return names


def test_copy_is_as_the_store_and_can_be_read(store: Store, mirror: Mirror) -> None:
    store.pipe("/bucket/models/net/config.pbtxt", b"version_policy { all {} }")
    store.pipe("/bucket/models/net/1/data/weights.bin", b"1234")
    assert files(mirror) == {}
    mirror.refresh()
    assert files(mirror) == {
        "net/1/data/weights.bin": b"1234",
        "net/1/model.onnx": GRAPH,
        "net/2/model.onnx": GRAPH + b"\0",
        "net/config.pbtxt": b"version_policy { all {} }",
    }
    found = find_models(mirror.folder, VersionPolicy())["net"]
    assert found.wanted == ("1", "2")
    assert read_model(found.versions["1"].path)[1].labels == LABELS


def test_nothing_is_brought_twice(store: Store, mirror: Mirror, fetched: list[str]) -> None:
    mirror.refresh()
    assert sorted(fetched) == ["net/1/model.onnx", "net/2/model.onnx"]
    before = find_models(mirror.folder, VersionPolicy())
    mirror.refresh()
    assert len(fetched) == 2
    assert find_models(mirror.folder, VersionPolicy()) == before
    store.pipe("/bucket/models/net/2/model.json", b"{}")
    mirror.refresh()
    assert fetched[2:] == ["net/2/model.json"]  # not the graph
    after = find_models(mirror.folder, VersionPolicy())["net"].versions
    assert after["1"].fingerprint == before["net"].versions["1"].fingerprint
    assert after["2"].fingerprint != before["net"].versions["2"].fingerprint
    assert all(path.stat().st_nlink == 1 for path in mirror.folder.rglob("*") if path.is_file())


def test_changed_file_of_the_same_size_is_brought(store: Store, mirror: Mirror) -> None:
    mirror.refresh()
    changed = bytes(reversed(GRAPH))
    store.pipe("/bucket/models/net/1/model.onnx", changed)
    mirror.refresh()
    assert files(mirror)["net/1/model.onnx"] == changed


def test_what_is_gone_goes(store: Store, mirror: Mirror) -> None:
    store.pipe("/bucket/models/net/config.pbtxt", b"")
    store.pipe("/bucket/models/other/1/model.onnx", GRAPH)
    mirror.refresh()
    store.rm("/bucket/models/net/1", recursive=True)
    store.rm("/bucket/models/net/config.pbtxt")
    mirror.refresh()
    assert list(files(mirror)) == ["net/2/model.onnx", "other/1/model.onnx"]
    store.rm("/bucket/models/net", recursive=True)
    mirror.refresh()
    assert [path.name for path in mirror.folder.iterdir()] == ["other"]


def test_folder_in_place_of_a_file_and_back(store: Store, mirror: Mirror) -> None:
    store.pipe("/bucket/models/net/x", b"a file")
    mirror.refresh()
    store.rm("/bucket/models/net/x")
    store.pipe("/bucket/models/net/x/y", b"below")
    mirror.refresh()
    assert files(mirror)["net/x/y"] == b"below"
    store.rm("/bucket/models/net/x", recursive=True)
    store.pipe("/bucket/models/net/x", b"a file")
    mirror.refresh()
    assert files(mirror)["net/x"] == b"a file"


def test_no_half_of_a_version_is_ever_seen(
    store: Store, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """After each file that is copied, versions are whole, the new one or the one before."""
    mirror.refresh()
    parts = {f"part{i}": rng.bytes(10) for i in range(5)}
    store.pipe({f"/bucket/models/net/2/{name}": data for name, data in parts.items()})
    store.pipe({f"/bucket/models/net/3/{name}": data for name, data in parts.items()})
    before = files(mirror)
    seen = []
    get = MemoryFileSystem.get_file

    def look(self: Store, *arguments: Any, **options: Any) -> None:
        get(self, *arguments, **options)
        now = files(mirror)
        for version in "23":
            count = sum(name.startswith(f"net/{version}/part") for name in now)
            assert count in {0, 5}
            seen.append(count)
        assert before.items() <= now.items()

    monkeypatch.setattr(MemoryFileSystem, "get_file", look)
    mirror.refresh()
    assert 0 in seen
    assert {name.removeprefix("net/3/"): data for name, data in files(mirror).items() if "net/3/" in name} == parts


def test_local_folder_is_mirrored_without_its_links(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    version = TinyClassifier.random(0).save(tmp_path / "models" / "net" / "1", card()).parent
    (version / "labels.txt").symlink_to(tmp_path / "secret")
    (version / "up").symlink_to("..")
    os.mkfifo(version / "pipe")
    (tmp_path / "models" / "README.md").write_text("no model")
    (tmp_path / "models" / "not a name" / "1").mkdir(parents=True)
    mirror = Mirror((tmp_path / "models").as_uri())
    try:
        mirror.refresh()
        assert list(files(mirror)) == ["net/1/model.onnx"]
        (version / "model.onnx").write_bytes(b"short")
        mirror.refresh()
        assert files(mirror)["net/1/model.onnx"] == b"short"
    finally:
        mirror.close()


def test_models_in_a_store_are_served(store: Store, rng: np.random.Generator) -> None:
    """From fsspec's store in memory; a URL behind which nothing lies stops the start."""
    net = TinyClassifier.random(int(rng.integers(2**32)))
    store.pipe("/bucket/models/net/7/model.onnx", net.to_onnx(card()).SerializeToString())
    with pytest.raises(RepositoryError, match="memory://bucket/none: cannot be listed"):
        Repository.load(Settings.model_validate({"models": "memory://bucket/none", "provider": "cpu"}))
    repository = Repository.load(Settings.model_validate({"models": "memory://bucket/models", "provider": "cpu"}))
    image = rng.integers(0, 256, (9, 7, 3), np.uint8)
    model = repository.find("net", "7")
    (scores,) = model.network.run(image[None])[model.scores_place]
    assert relative_error(scores, net.logits(image, card().preprocessing)) < 1e-4

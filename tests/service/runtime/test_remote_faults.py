"""The mirror of a store that fails or lies: what was there stays, nothing is written elsewhere, and it is tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.runtime.remote import Mirror, RemoteError
from tests.service.runtime.bucket import GRAPH, Store, files


def broken_read(self: Store, name: str, *arguments: Any, **options: Any) -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


def short_read(self: Store, name: str, target: str, *arguments: Any, **options: Any) -> None:
    Path(target).write_bytes(b"half")


@pytest.mark.parametrize(("read", "says"), [(broken_read, "reset by peer"), (short_read, "it is being written")])
def test_copy_that_fails_leaves_what_was_there_and_is_tried_again(
    store: Store, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, read: Callable[..., None], says: str
) -> None:
    mirror.refresh()
    before = files(mirror)
    get = MemoryFileSystem.get_file
    store.pipe("/bucket/models/net/2/model.onnx", GRAPH)
    store.pipe("/bucket/models/net/3/model.onnx", GRAPH)
    store.pipe("/bucket/models/good/1/model.onnx", GRAPH)
    monkeypatch.setattr(
        MemoryFileSystem,
        "get_file",
        lambda self, name, *rest, **options: (get if "good" in name else read)(self, name, *rest, **options),
    )
    with pytest.raises(RemoteError, match=says) as caught:
        mirror.refresh()
    assert "net/2" in str(caught.value)
    assert "net/3" in str(caught.value)
    assert files(mirror) == {**before, "good/1/model.onnx": GRAPH}  # the others are brought all the same
    assert not list(mirror.folder.parent.glob("staging/*"))
    monkeypatch.setattr(MemoryFileSystem, "get_file", get)
    mirror.refresh()
    assert files(mirror)["net/3/model.onnx"] == files(mirror)["net/2/model.onnx"] == GRAPH


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), TimeoutError(), FileNotFoundError("gone")])
@pytest.mark.parametrize("where", ["/bucket/models", "/bucket/models/net", "/bucket/models/net/2"])
def test_store_that_cannot_be_listed_takes_nothing_away(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, error: OSError, where: str
) -> None:
    mirror.refresh()
    before = files(mirror)
    ls = MemoryFileSystem.ls

    def fail(self: Store, path: str, *arguments: Any, **options: Any) -> Any:
        if path == where:
            raise error
        return ls(self, path, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    with pytest.raises(RemoteError, match="memory://bucket/models: cannot be listed"):
        mirror.refresh()
    assert files(mirror) == before
    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    mirror.refresh()
    assert files(mirror) == before


def listing(*names: str, kind: str = "file") -> Callable[..., list[dict[str, object]]]:
    """A store's `ls` that says what it likes of the model's version."""
    ls = MemoryFileSystem.ls

    def lie(self: Store, path: str, *arguments: Any, **options: Any) -> Any:
        found = ls(self, path, *arguments, **options)
        if path.endswith("/net/1"):
            found = [*found, *({"name": name, "size": 4, "type": kind} for name in names)]
        return found

    return lie


@pytest.mark.parametrize(
    "name",
    [
        "/bucket/models/net/1/..",
        "..",
        "/bucket/models/net/1/a\\b",
        "/bucket/models/net/1/a\0b",
        "/bucket/models/net/1/.",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_listed_name_that_leads_out_is_passed_over(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "ls", listing(name, kind=kind))
    mirror.refresh()
    assert list(files(mirror)) == ["net/1/model.onnx", "net/2/model.onnx"]
    assert {path.name for path in mirror.folder.parent.iterdir()} == {"models", "staging"}


def test_store_without_an_end_is_refused(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.refresh()
    before = files(mirror)
    monkeypatch.setattr(
        MemoryFileSystem, "ls", lambda self, path, **options: [{"name": f"{path}/a", "type": "directory"}]
    )
    with pytest.raises(RemoteError, match="lies too deep"):
        mirror.refresh()
    many = [{"name": f"/bucket/models/net/{i}", "type": "file", "size": 1} for i in range(100_001)]
    root = [{"name": "/bucket/models/net", "type": "directory"}]
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda self, path, **options: many if path.endswith("net") else root)
    with pytest.raises(RemoteError, match="more than 100000 files"):
        mirror.refresh()
    assert files(mirror) == before

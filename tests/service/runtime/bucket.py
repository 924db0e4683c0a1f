"""A store in memory, and the mirror of one model of two versions that lies in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsspec.implementations.memory import MemoryFileSystem

from service.runtime.remote import Mirror
from tests.tiny import TinyClassifier, card

Store = MemoryFileSystem

GRAPH = TinyClassifier.random(0).to_onnx(card()).SerializeToString()


@contextmanager
def emptied() -> Iterator[Store]:
    """fsspec's store in memory, empty; it is one for the process."""
    memory = MemoryFileSystem()
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@contextmanager
def mirrored(store: Store) -> Iterator[Mirror]:
    """A mirror of one model of two versions."""
    store.pipe({"/bucket/models/net/1/model.onnx": GRAPH, "/bucket/models/net/2/model.onnx": GRAPH + b"\0"})
    made = Mirror("memory://bucket/models")
    yield made
    made.close()
    assert not made.folder.exists()


def files(mirror: Mirror) -> dict[str, bytes]:
    """All that is in the copy."""
    found = {path.relative_to(mirror.folder): path for path in sorted(mirror.folder.rglob("*")) if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items()}

"""What the tests of a repository that changes, and of its mirror, have in common."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.runtime.remote import Mirror
from tests.service.runtime.bucket import Store, emptied, mirrored


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Private copies go where the test can look."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store() -> Iterator[Store]:
    with emptied() as memory:
        yield memory


@pytest.fixture
def mirror(store: Store) -> Iterator[Mirror]:
    with mirrored(store) as made:
        yield made

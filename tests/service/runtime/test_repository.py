"""The repository: what is found, what is refused, who is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import InvalidParameter, ModelNotFound
from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.tiny import TinyClassifier, card


def load(folder: Path, **overrides: object) -> Repository:
    return Repository.load(Settings.model_validate({"models": folder, "provider": "cpu", **overrides}))


def test_highest_version_is_served(tmp_path: Path) -> None:
    for version in ("2", "10", "9", "latest"):
        TinyClassifier.random(0).save(tmp_path / "tiny" / version, card())
    repository = load(tmp_path)
    assert repository.find("tiny", None).version == "10"
    with pytest.raises(ModelNotFound, match="no such version; loaded is: 10"):
        repository.find("tiny", "2")


def test_one_model_needs_no_name_several_do(tmp_path: Path) -> None:
    TinyClassifier.random(0).save(tmp_path / "one" / "1", card())
    assert load(tmp_path).find(None, None).name == "one"
    TinyClassifier.random(0).save(tmp_path / "two" / "1", card())
    with pytest.raises(InvalidParameter, match="one of: one, two"):
        load(tmp_path).find(None, None)


@pytest.mark.parametrize("name", ["../one", "one/1", "ONE", "", "one\0", "x" * 10_000, "öne"])
def test_other_names_are_not_found(tmp_path: Path, name: str) -> None:
    TinyClassifier.random(0).save(tmp_path / "one" / "1", card())
    with pytest.raises(ModelNotFound, match="no such model; loaded are: one"):
        load(tmp_path).find(name, None)


def test_broken_model_is_named_with_its_file_and_stops_the_start(tmp_path: Path) -> None:
    TinyClassifier.random(0).save(tmp_path / "good" / "1", card())
    broken = tmp_path / "bad" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"junk")
    with pytest.raises(RepositoryError, match="not a readable ONNX file") as caught:
        load(tmp_path)
    assert str(broken.parent) in str(caught.value)
    repository = load(tmp_path, skip_broken_models=True)
    assert list(repository.models) == ["good"]
    with pytest.raises(ModelNotFound, match="could not be loaded"):
        repository.find("bad", None)


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_folder_without_models_stops_the_start(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryError, match="found no model to serve"):
        load(tmp_path / folder)

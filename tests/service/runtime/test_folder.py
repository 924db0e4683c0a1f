"""What is found in a repository's folder: names, versions, what is wanted of them, and whether something has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.runtime.configuration import Configuration
from service.runtime.folder import Found, find_model, find_models
from service.runtime.policy import VersionPolicy

LATEST = VersionPolicy()


def write(path: Path, data: bytes = b"a graph") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def look(folder: Path, name: str = "net", policy: VersionPolicy = LATEST) -> Found:
    found = find_model(folder, name, policy)
    assert found is not None
    return found


def test_models_and_versions_are_found_in_order(tmp_path: Path) -> None:
    for path in ("b/10/model.onnx", "b/9/model.onnx", "b/1/model.onnx", "a/7/model.onnx"):
        write(tmp_path / path)
    found = find_models(tmp_path, VersionPolicy.latest(2))
    assert list(found) == ["a", "b"]
    assert list(found["b"].versions) == ["1", "9", "10"]
    assert found["b"].wanted == ("9", "10")
    assert found["b"].versions["9"].path == tmp_path / "b/9/model.onnx"
    assert found["b"].problem is found["b"].configuration is None


@pytest.mark.parametrize("name", ["0", "01", "latest", "٣", "-1", "99999999999999999999"])
def test_what_is_no_version_is_ignored(tmp_path: Path, name: str) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    write(tmp_path / "net" / name / "model.onnx")
    found = look(tmp_path, policy=VersionPolicy.all())
    assert found.wanted == ("1",)
    assert all("expected a number from 1 on" in reason for reason in found.ignored.values())
    assert (name in found.ignored) == name.isdecimal()


def test_version_without_its_file_is_none_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    (tmp_path / "net" / "2").mkdir()
    write(tmp_path / "net" / "3" / "model.onnx.part")
    found = look(tmp_path)
    assert found.wanted == ("1",)
    assert found.ignored == {"2": "has no model.onnx", "3": "has no model.onnx"}


def test_files_and_empty_folders_are_no_models(tmp_path: Path) -> None:
    write(tmp_path / "README.md")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "bad name" / "1" / "model.onnx")
    assert find_models(tmp_path, LATEST) == {}


@pytest.mark.parametrize("name", ["", ".", "..", "../net", "net/1", "net\0", "x" * 10_000, "/etc", "öne"])
def test_no_name_leads_out_of_the_repository(tmp_path: Path, name: str) -> None:
    write(tmp_path / "models" / "net" / "1" / "model.onnx")
    write(tmp_path / "1" / "model.onnx")  # what `..` would find
    assert find_model(tmp_path / "models", name, LATEST) is None
    look(tmp_path / "models")


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_models(tmp_path / "nowhere", LATEST)


def test_models_own_policy_comes_before_the_settings(tmp_path: Path) -> None:
    for version in "123":
        write(tmp_path / "net" / version / "model.onnx")
    write(tmp_path / "net" / "config.pbtxt", b"version_policy { specific { versions: [1, 2] } }")
    assert look(tmp_path).wanted == ("1", "2")
    write(tmp_path / "net" / "config.pbtxt", b"version_policy { all {} }")
    assert look(tmp_path).wanted == ("1", "2", "3")
    write(tmp_path / "net" / "config.pbtxt", b"max_batch_size: 4")
    assert look(tmp_path).wanted == ("3",)
    given = Configuration(tmp_path / "net", version_policy=VersionPolicy.specific([2]))
    found = find_model(tmp_path, "net", LATEST, given)
    assert found is not None
    assert found.wanted == ("2",)


def test_configuration_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "net" / "config.pbtxt", b'default_model_filename: "resnet.onnx"')
    write(tmp_path / "net" / "1" / "resnet.onnx")
    write(tmp_path / "net" / "2" / "model.onnx")
    found = look(tmp_path)
    assert found.versions["1"].path.name == "resnet.onnx"
    assert found.ignored == {"2": "has no resnet.onnx"}


def test_model_can_be_a_folder_of_files(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx" / "model.onnx")
    assert look(tmp_path).versions["1"].path == tmp_path / "net" / "1" / "model.onnx" / "model.onnx"


def test_broken_configuration_wants_nothing_and_says_why(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    write(tmp_path / "net" / "config.pbtxt", b"max_batch_size: many")
    found = look(tmp_path)
    assert found.wanted == ()
    assert found.problem is not None
    assert "config.pbtxt:1:17" in found.problem.reason
    assert str(tmp_path) not in found.problem.reason
    assert str(tmp_path) in str(found.problem)
    before = found.fingerprint
    write(tmp_path / "net" / "config.pbtxt", b"max_batch_size: 4")
    assert look(tmp_path).fingerprint != before
    assert look(tmp_path).wanted == ("1",)


def replace(path: Path) -> None:
    """Put another file of the same size and times in a file's place."""
    state = path.stat()
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda own: write(own / "1" / "model.onnx", b"a longer graph"),
    "touched": lambda own: os.utime(own / "1" / "model.onnx", ns=(1, 1)),
    "replaced": lambda own: replace(own / "1" / "model.onnx"),
    "weights": lambda own: replace(own / "1" / "data" / "weights.bin"),
    "card": lambda own: write(own / "1" / "model.json"),
    "labels": lambda own: write(own / "labels.txt", b"cat"),
    "no labels": lambda own: (own / "labels.txt").unlink(),
    "configuration": lambda own: write(own / "config.pbtxt", b"max_batch_size: 3"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_changes_with_every_file_that_matters(tmp_path: Path, change: str) -> None:
    own = tmp_path / "net"
    write(own / "1" / "model.onnx")
    write(own / "1" / "data" / "weights.bin")
    write(own / "labels.txt", b"dog\n")
    write(own / "config.pbtxt", b'output { name: "y" label_filename: "labels.txt" }')
    before = look(tmp_path).versions["1"].fingerprint
    assert look(tmp_path).versions["1"].fingerprint == before
    write(own / "notes.txt")
    write(own / "2" / "model.onnx")
    assert look(tmp_path).versions["1"].fingerprint == before  # nothing of it has changed
    CHANGES[change](own)
    assert look(tmp_path).versions["1"].fingerprint != before


def test_fingerprint_sees_through_a_link_and_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    target = write(tmp_path / "net" / "files" / "graph")
    (tmp_path / "net" / "1").mkdir()
    (tmp_path / "net" / "1" / "model.onnx").symlink_to(target)
    before = look(tmp_path).versions["1"].fingerprint
    write(target, b"another graph")
    assert look(tmp_path).versions["1"].fingerprint != before
    target.unlink()
    assert look(tmp_path).wanted == ("1",)


def test_circle_of_folders_ends(tmp_path: Path) -> None:
    write(tmp_path / "net" / "1" / "model.onnx")
    (tmp_path / "net" / "1" / "again").symlink_to(tmp_path / "net", target_is_directory=True)
    (tmp_path / "net" / "loop").symlink_to("loop")
    assert look(tmp_path).wanted == ("1",)


def test_what_goes_away_during_a_look_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in "12":
        write(tmp_path / "net" / version / "model.onnx")
    listdir = os.listdir

    def remove_first(path: Path) -> list[str]:
        names = listdir(path)
        shutil.rmtree(tmp_path / "net" / "2", ignore_errors=True)
        return names

    monkeypatch.setattr(os, "listdir", remove_first)
    assert look(tmp_path).wanted == ("1",)

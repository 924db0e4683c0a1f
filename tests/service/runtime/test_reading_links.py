"""Reading a model behind links: followed within its model's folder, refused where they leave it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.runtime.reading import read_model
from tests.service.runtime.version_folder import good, refused, saved
from tests.tiny import LABELS


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return saved(tmp_path)


def test_link_that_leaves_the_folder_is_refused(version: Path, tmp_path: Path) -> None:
    path = version / "model.onnx"
    outside = path.rename(tmp_path / "outside" / "model.onnx")
    path.symlink_to(outside)
    assert refused(version) == "1/model.onnx: expected a file in its model's folder, got a link that leaves it"
    path.unlink()
    path.symlink_to(Path("..", "..", "..", "outside", "model.onnx"))
    assert "a link that leaves it" in refused(version)
    good(version)


def test_versions_folder_that_is_a_link_outside_is_refused(version: Path, tmp_path: Path) -> None:
    moved = version.rename(tmp_path / "outside" / "1")
    version.symlink_to(moved, target_is_directory=True)
    assert "a link that leaves it" in refused(version)
    version.unlink()
    good(version)


def test_folder_above_a_link_is_refused(version: Path, tmp_path: Path) -> None:
    """`1/model.onnx` is a file, and lies behind a link that leaves."""
    deep = tmp_path / "outside" / "deep"
    deep.mkdir()
    (version / "model.onnx").rename(deep / "model.onnx")
    (version / "model.onnx").symlink_to("other/model.onnx")
    (version / "other").symlink_to(deep, target_is_directory=True)
    assert "a link that leaves it" in refused(version)
    good(version)


def test_links_inside_the_folder_are_followed(version: Path) -> None:
    """As in folders that Kubernetes mounts."""
    data = version.parent / "..data"
    data.mkdir()
    (version / "model.onnx").rename(data / "graph")
    (version / "model.onnx").symlink_to(Path("..", "..data", "graph"))
    assert read_model(version / "model.onnx")[1].labels == LABELS


def test_models_folder_can_be_a_link(version: Path, tmp_path: Path) -> None:
    """Who runs the service has made that one."""
    link = tmp_path / "models" / "alias"
    link.symlink_to(version.parent, target_is_directory=True)
    assert read_model(link / "1" / "model.onnx")[1].labels == LABELS


@pytest.mark.parametrize("target", ["nowhere", "model.onnx", "../../../../../../../../../../nowhere"])
def test_link_to_nothing_or_to_itself_is_refused(version: Path, target: str) -> None:
    (version / "model.onnx").unlink()
    (version / "model.onnx").symlink_to(target)
    assert "got a link that cannot be read" in refused(version)
    good(version)


def test_device_is_refused(version: Path) -> None:
    (version / "model.onnx").unlink()
    (version / "model.onnx").symlink_to("/dev/zero")
    assert "a link that leaves it" in refused(version)
    good(version)


def test_card_behind_a_link_that_leaves_is_refused(version: Path, tmp_path: Path) -> None:
    (version / "model.json").symlink_to(tmp_path / "outside" / "secret")
    assert refused(version) == "1/model.json: expected a file in its model's folder, got a link that leaves it"
    good(version)

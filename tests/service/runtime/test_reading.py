"""Reading a model: what is no file, or no graph, is refused before anything opens it, each followed by a good load."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.runtime.broken import BrokenModel
from service.runtime.reading import read_model
from tests.service.runtime.version_folder import good, refused, save_external, saved


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return saved(tmp_path)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name may have 107 bytes
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_pipe, "a pipe"), (make_socket, "a socket"), (Path.mkdir, "a folder")],
    ids=["pipe", "socket", "folder"],
)
@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    version: Path, make: Callable[[Path], None], kind: str, name: str
) -> None:
    (version / name).unlink(missing_ok=True)
    make(version / name)
    assert refused(version) == f"1/{name}: expected a regular file, got {kind}"
    (version / name).rmdir() if kind == "a folder" else (version / name).unlink()
    good(version)


def test_card_that_is_not_valid_is_not_repeated(version: Path) -> None:
    (version / "model.json").write_text('{"labels": ["' + "x" * 10_000 + '"], "min_height": -1}')
    assert "min_height" in refused(version)
    (version / "model.json").write_text('{"labels": "' + "x" * 10_000)
    assert "model.json" in refused(version)
    good(version)


@pytest.mark.parametrize(
    "junk",
    [b"", b"junk", b"\x08\x0a", os.urandom(1000), b"\x3a\xff\xff\xff\xff\x0f"],
    ids=["empty", "text", "cut off", "noise", "longer than it is"],
)
def test_file_that_is_no_graph_is_refused(version: Path, junk: bytes) -> None:
    (version / "model.onnx").write_bytes(junk)
    refused(version)
    good(version)


def test_file_cut_short_is_refused(version: Path) -> None:
    data = (version / "model.onnx").read_bytes()
    (version / "model.onnx").write_bytes(data[: len(data) // 2])
    assert "not a readable ONNX file" in refused(version)
    good(version)


def test_file_larger_than_protobuf_reads_is_refused_by_its_size(version: Path) -> None:
    with (version / "model.onnx").open("wb") as file:
        file.truncate(2**31)  # a hole: takes no room
    assert "expected at most 2147483647 bytes, it has 2147483648" in refused(version)
    good(version)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with up to five bytes or short pieces of it changed, taken away or put in."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place, length = int(rng.integers(len(changed))), int(rng.integers(1, 10))
        changed[place : place + length * int(rng.integers(2))] = rng.bytes(length * int(rng.integers(2)))
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_damage_is_a_broken_model_or_none(version: Path, rng: np.random.Generator, beside: bool) -> None:
    path = save_external(version) if beside else version / "model.onnx"
    data, reasons = path.read_bytes(), []
    for _ in range(300):
        path.write_bytes(damaged(data, rng))
        try:
            read_model(path)
        except BrokenModel as error:
            reasons.append(error.reason)
    assert len(reasons) > 100
    assert all(str(version) not in reason and len(reason) < 1500 for reason in reasons)
    good(version)

"""Private folders: they go with their process, and what a killed one left goes with the next start; nothing else does."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from service.runtime.scratch import Scratch

HOLDING = """
import sys
from service.runtime.scratch import Scratch
scratch = Scratch()
(scratch.folder / "weights").write_bytes(bytes(1000))
print(scratch.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def hold(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Have a process make a folder in a place. Returns the process, which waits, and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(place)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_private_and_goes_when_it_is_closed() -> None:
    scratch = Scratch()
    assert scratch.folder.parent.stat().st_mode & 0o777 == 0o700
    assert not list(scratch.folder.iterdir())
    (scratch.folder / "file").write_text("text")
    scratch.close()
    scratch.close()
    assert not scratch.folder.parent.exists()


def test_it_goes_when_nobody_holds_it() -> None:
    folder = Scratch().folder
    assert not folder.parent.exists()


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    (killed, left), (living, held) = hold(tmp_path), hold(tmp_path)
    killed.kill()
    killed.communicate()
    assert (left / "weights").exists()
    scratch = Scratch()
    assert not left.parent.exists()
    assert (held / "weights").exists()
    assert scratch.folder.is_dir()
    living.communicate()  # its standard input ends, and so does it
    assert not held.parent.exists()


def test_what_is_not_known_to_be_left_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "in-use").write_text("")
    (tmp_path / "poolserve-link").symlink_to(elsewhere)
    (tmp_path / "poolserve-being-made").mkdir()
    (tmp_path / "poolserve-file").write_text("")
    aside = tmp_path / "poolserve-aside"
    aside.mkdir()
    (aside / "in-use").symlink_to(elsewhere / "in-use")
    before = sorted(tmp_path.rglob("*"))
    Scratch().close()
    assert sorted(tmp_path.rglob("*")) == before

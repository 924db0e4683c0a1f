"""The README's curl lines, run as they are written, against a server as `make serve` starts it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import ROOT, Server, serve

LINES = re.findall(r"^curl .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
LABELS = {"8x8": "5", "33x71": "7", "640x480": "3", "4000x3000": "2"}
"""What is in the sample pictures (export/samples.py), by size."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", LINES)
def test_curl_line_works_as_written(server: Server, line: str) -> None:
    command = line.replace("curl ", "curl --silent --fail-with-body ", 1).replace("http://127.0.0.1:8000", server.url)
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = json.loads(ended.stdout)
    pictures = re.findall(r"digit-(\d+x\d+)\.", line)
    for result, size in zip(answer.get("results", []), pictures, strict=True):
        assert f"{result['width']}x{result['height']}" == size
        assert result["predictions"][0]["label"] == LABELS[size]


def test_there_are_lines_for_each_size() -> None:
    assert {size for line in LINES for size in re.findall(r"digit-(\d+x\d+)\.", line)} == set(LABELS)
    assert all((Path(ROOT) / name).exists() for line in LINES for name in re.findall(r"@([\w./-]+)", line))

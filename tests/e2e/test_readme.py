"""The README's curl lines, run as they are written, against a server as `make serve` starts it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.server import ROOT, Server, serve

README = (ROOT / "README.md").read_text()
LINES = re.findall(r"^curl .*$", README, re.MULTILINE)
OUTPUT = re.compile(r" -o (\S+)$")
CLASSIFIED = [line for line in LINES if "/v1/classify" in line and "digit-" in line]
LABELS = {"8x8": "5", "33x71": "7", "640x480": "3", "4000x3000": "2"}
"""What is in the sample pictures (export/samples.py), by size."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("log") / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where answers go; what the README's Python lines make is there."""
    made = tmp_path_factory.mktemp("answers")
    for line in re.findall(r"^python (-c .*)$", README, re.MULTILINE):
        subprocess.run(["bash", "-c", f"{sys.executable} {line}"], cwd=made, check=True, timeout=120)
    return made


def run(server: Server, folder: Path, line: str) -> str:
    """Run a line as it is written, but for the address and for where it reads and writes what is not in the repository."""
    command = line.replace("curl ", "curl --silent --fail-with-body ", 1).replace("http://127.0.0.1:8000", server.url)
    command = re.sub(r"@(\w+\.npy)", rf"@{folder}/\1", OUTPUT.sub(rf" -o {folder}/\1", command))
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
@pytest.mark.parametrize("line", [line for line in LINES if not OUTPUT.search(line)])
def test_curl_line_works_as_written(server: Server, folder: Path, line: str) -> None:
    text = run(server, folder, line)
    if line.endswith("/metrics"):  # Prometheus's format, not JSON
        assert text.startswith("# HELP ")
        return
    answer = json.loads(text)
    assert answer
    if line in CLASSIFIED:
        pictures = re.findall(r"digit-(\d+x\d+)\.", line)
        for result, size in zip(answer["results"], pictures, strict=True):
            assert f"{result['width']}x{result['height']}" == size
            assert result["predictions"][0]["label"] == LABELS[size]


@needs_curl
def test_first_line_of_pooling_answers_what_is_shown(server: Server, folder: Path) -> None:
    line = next(line for line in LINES if line.endswith("/v1/pool"))
    shown = README.split(line)[1].split("```json\n")[1].split("\n")[0]
    assert run(server, folder, line) == shown
    assert json.loads(shown)["tensor"] == [[5, 7], [8, 9]]


@needs_curl
def test_first_line_of_the_protocol_answers_what_is_shown(server: Server, folder: Path) -> None:
    line = next(line for line in LINES if "image_bytes" in line)
    shown = json.loads(README.split(line)[1].split("```json\n")[1].split("\n")[0])["outputs"][0]
    (output,) = json.loads(run(server, folder, line))["outputs"]
    assert output | {"data": 0} == shown | {"data": 0}
    for got, expected in zip(output["data"], shown["data"], strict=True):
        assert got.split(":")[1:] == expected.split(":")[1:]
        assert abs(float(got.split(":")[0]) - float(expected.split(":")[0])) < 1e-5


def test_lines_for_tritonclient_print_what_is_shown(server: Server) -> None:
    (code,) = re.findall(r"```python\n(import numpy, tritonclient.*?)```", README, re.DOTALL)
    code = code.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == code.strip().rpartition("# ")[2]


@needs_curl
def test_photo_comes_back_pooled_beside_itself(server: Server, folder: Path) -> None:
    (line,) = (line for line in LINES if line.endswith("pooled.png"))
    run(server, folder, line)
    with Image.open(folder / "pooled.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (640 + 8 + 640, 480)


@needs_curl
def test_feature_maps_come_back_pooled(server: Server, folder: Path) -> None:
    (line,) = (line for line in LINES if line.endswith("pooled.npy"))
    run(server, folder, line)
    before, after = np.load(folder / "features.npy"), np.load(folder / "pooled.npy")
    assert (before.shape, before.dtype) == ((64, 256, 56, 56), np.float16)
    assert np.array_equal(after, before.reshape(64, 256, 28, 2, 28, 2).max((3, 5)))


@needs_curl
def test_heatmap_is_the_one_that_is_shown(server: Server, folder: Path) -> None:
    """But for the loss of the file shown, and other rounding on other machines: on average 2 levels of 255."""
    (line,) = (line for line in LINES if line.endswith("heatmap.png"))
    run(server, folder, line)
    shown = re.findall(r"\((docs/pictures/heatmap\S+)\)", README)
    with Image.open(folder / "heatmap.png") as got, Image.open(ROOT / shown[0]) as expected:
        assert (got.format, got.size) == ("PNG", (640, 480))
        difference = np.asarray(got.convert("RGB"), np.float64) - np.asarray(expected.convert("RGB"), np.float64)
        assert np.abs(difference).mean() <= 2
    (line,) = (line for line in LINES if "/v1/heatmap" in line and not OUTPUT.search(line))
    (result,) = json.loads(run(server, folder, line))["results"]
    heat = np.array(result["map"])
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    y, x = (
        first + place * step for first, place, step in zip(result["first"], (row, column), result["step"], strict=True)
    )
    assert abs(y - 300) <= 64  # the digit stands at (205, 300) pixels
    assert abs(x - 205) <= 64


@needs_curl
def test_descriptors_come_back_as_a_file(server: Server, folder: Path) -> None:
    (line,) = (line for line in LINES if line.endswith("descriptors.npy"))
    run(server, folder, line)
    vectors = np.load(folder / "descriptors.npy")
    assert (vectors.shape, vectors.dtype) == ((2, 96), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_there_are_lines_for_each_size() -> None:
    assert {size for line in CLASSIFIED for size in re.findall(r"digit-(\d+x\d+)\.", line)} == set(LABELS)
    named = {name for line in LINES for name in re.findall(r"@([\w./-]+)", line)} - {"features.npy", "digit.npy"}
    assert all((Path(ROOT) / name).exists() for name in named)

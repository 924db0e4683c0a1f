"""KServe's client against a server. Its packages are not ours, so it runs in the environment that `make test` makes for it."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.claims import relative_error
from tests.e2e.server import serve
from tests.tiny import TinyClassifier, card

PYTHON = Path(sys.prefix) / "kserve" / "bin" / "python"
SIZES = [(8, 8), (31, 17), (5, 40)]

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="no KServe client here; `make test` installs it")


def picture(pixels: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return np.frombuffer(stream.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    seed = int(os.environ.get("SEED", secrets.randbits(32)))
    print(f"SEED={seed}")
    rng = np.random.default_rng(seed)
    return {
        "pixels": rng.integers(0, 256, (2, 9, 7, 3), np.uint8),
        "tensor": rng.normal(size=(3, 4, 6)).astype(np.float32),
        **{f"plain{place}": rng.integers(0, 256, (*size, 3), np.uint8) for place, size in enumerate(SIZES)},
    }


@pytest.fixture(scope="module")
def said(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client got."""
    folder = tmp_path_factory.mktemp("kserve")
    TinyClassifier.random(1).save(folder / "models" / "colour" / "1", card())
    pictures = {f"picture{place}": picture(arrays[f"plain{place}"]) for place in range(len(SIZES))}
    np.savez(folder / "arrays.npz", pixels=arrays["pixels"], tensor=arrays["tensor"], **pictures)
    script = Path(__file__).with_name("kserve_client.py")
    with serve(folder / "server.log", "--models", str(folder / "models")) as server:
        ended = subprocess.run(
            [PYTHON, script, server.url, folder / "arrays.npz"], capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 0, ended.stderr
    answers: dict[str, Any] = json.loads(ended.stdout)
    return answers


def test_health(said: dict[str, Any]) -> None:
    assert (said["live"], said["ready"], said["model ready"], said["nobody ready"]) == (True, True, True, False)


def assert_classified(got: dict[str, Any], images: list[np.ndarray]) -> None:
    expected = np.stack([TinyClassifier.random(1).logits(image, card().preprocessing) for image in images])
    assert relative_error(np.array(got["logits"]), expected) < 1e-4
    e = np.exp(expected - expected.max(1, keepdims=True))
    assert relative_error(np.array(got["probabilities"]), e / e.sum(1, keepdims=True)) < 1e-3


@pytest.mark.parametrize("form", ["bytes", "JSON"])
def test_pixels(said: dict[str, Any], arrays: dict[str, np.ndarray], form: str) -> None:
    assert_classified(said[f"pixels as {form}"], list(arrays["pixels"]))


@pytest.mark.parametrize("form", ["bytes", "JSON"])
def test_pictures(said: dict[str, Any], arrays: dict[str, np.ndarray], form: str) -> None:
    assert_classified(said[f"pictures as {form}"], [arrays[f"plain{place}"] for place in range(len(SIZES))])


@pytest.mark.parametrize("form", ["tensor as bytes", "tensor as JSON", "halves as bytes"])
def test_pooled_tensors(said: dict[str, Any], arrays: dict[str, np.ndarray], form: str) -> None:
    dtype = np.float16 if "halves" in form else np.float32
    expected = arrays["tensor"].astype(dtype).reshape(3, 2, 2, 3, 2).max((2, 4))
    assert np.array_equal(np.array(said[form]["tensor"], dtype), expected)


def test_dictionary_is_sent_as_it_stands(said: dict[str, Any]) -> None:
    assert said["a dictionary"] == 9


def test_error_is_an_exception_with_words(said: dict[str, Any]) -> None:
    status, words = said["error"]
    assert status == 404
    assert "no such model" in words

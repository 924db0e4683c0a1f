"""What the `colour` model of the fixtures must answer, in float64; and that a server still gives that answer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from tests.tiny import LABELS, TinyClassifier, card


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


PLAIN = np.full((5, 5, 3), 99, np.uint8)
GOOD = png(PLAIN)


def expected(pixels: np.ndarray) -> np.ndarray:
    """The `colour` model's probabilities in float64."""
    logits = TinyClassifier.random(1).logits(pixels, card().preprocessing)
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum())


def assert_result(result: dict[str, Any], pixels: np.ndarray, top: int = 3) -> None:
    """Probabilities within 1e-4 of float64, most probable first."""
    assert (result["height"], result["width"]) == pixels.shape[:2]
    p = expected(pixels)
    got = result["predictions"]
    assert len(got) == top
    assert [entry["label"] for entry in got] == [LABELS[entry["index"]] for entry in got]
    assert [entry["probability"] for entry in got] == sorted((entry["probability"] for entry in got), reverse=True)
    for entry in got:
        assert abs(entry["probability"] - p[entry["index"]]) <= 1e-4


def assert_healthy(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ready"}
    response = client.post("/v1/classify?model=colour", content=GOOD)
    assert_result(response.json()["results"][0], PLAIN)
    admission = client.app.state.poolserve.repository.models["colour"].admission  # type: ignore[attr-defined]
    assert (admission.waiting, admission.backlog) == (0, 0)

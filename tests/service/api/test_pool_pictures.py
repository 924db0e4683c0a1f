"""Pictures at /v1/pool: pictures come out, side by side with what came where that is asked, or numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.service.api.tensors import maximum


def picture(rng: np.random.Generator) -> tuple[np.ndarray, bytes]:
    pixels = rng.integers(0, 256, (10, 8, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return pixels, buffer.getvalue()


@pytest.mark.parametrize("headers", [{"content-type": "image/png"}, {}, {"content-type": "application/octet-stream"}])
def test_picture_in_picture_out(client: TestClient, rng: np.random.Generator, headers: dict[str, str]) -> None:
    pixels, encoded = picture(rng)
    response = client.post("/v1/pool?op=max&kernel=2", content=encoded, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    got = np.asarray(Image.open(io.BytesIO(response.content)))
    assert np.array_equal(got, np.moveaxis(maximum(np.moveaxis(pixels, -1, 0)), 0, -1))


def test_picture_in_numbers_out(client: TestClient, rng: np.random.Generator) -> None:
    pixels, encoded = picture(rng)
    response = client.post("/v1/pool?op=avg&kernel=2", content=encoded, headers={"accept": "application/x-npy"})
    got = np.load(io.BytesIO(response.content))
    expected = pixels.reshape(5, 2, 4, 2, 3).astype(np.float64).mean((1, 3))
    assert (got.shape, got.dtype) == ((5, 4, 3), np.float32)
    assert np.abs(got - expected).max() <= 1e-6 * 255


def test_pictures_before_and_after_stand_side_by_side(client: TestClient, rng: np.random.Generator) -> None:
    pixels, encoded = picture(rng)
    response = client.post("/v1/pool", files={"image": encoded}, data={"op": "max", "kernel": "2", "compare": "true"})
    got = np.asarray(Image.open(io.BytesIO(response.content)))
    assert got.shape == (10, 8 + 8 + 8, 3)
    assert np.array_equal(got[:, :8], pixels)
    pooled = np.moveaxis(maximum(np.moveaxis(pixels, -1, 0)), 0, -1)
    assert np.array_equal(got[:, 16:], pooled.repeat(2, 0).repeat(2, 1))

"""POST /v1/heatmap with maps of many numbers: a hundred million would be one call of the writer's, in which nobody is answered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from starlette.types import Send

from service.api import sending
from tests.service.api.exported import make, png
from tests.service.api.serving import serving


def test_large_maps_go_out_in_pieces(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "gap")
    data = png(rng.integers(0, 256, (600, 500, 3), np.uint8))
    numbers: list[int] = []
    send = sending.send_answer

    async def watched(to: Send, headers: list[tuple[bytes, bytes]], buffers: Sequence[bytes | memoryview]) -> None:
        numbers.append(len(buffers))
        await send(to, headers, buffers)

    monkeypatch.setattr(sending, "send_answer", watched)
    url = "/v1/heatmap?model=gap&class=1"
    with serving(models=tmp_path) as client:
        raw = np.load(io.BytesIO(client.post(url, content=data, headers={"Accept": "application/x-npy"}).content))
        files = [("image", data)] * 2
        response = client.post(f"{url}&upsample=true", files=files, headers={"Accept": "application/json"})
    one, other = response.json()["results"]
    assert one == other
    assert np.array_equal(np.array(one["map"], np.float32), raw)
    assert int(response.headers["content-length"]) == len(response.content)
    assert numbers[-1] >= 8

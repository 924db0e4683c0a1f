"""GET /metrics, read with Prometheus' own parser."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.pictures import encode


def read(client: TestClient) -> dict[tuple[str, str], float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, sample.labels.get("queue", "")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_the_cache_of_pooling_graphs_is_counted(client: TestClient, rng: np.random.Generator) -> None:
    kernel = int(rng.integers(2, 6))
    before = read(client)
    for size in (7, 8):
        tensor = rng.random((size, size)).tolist()
        answer = client.post(
            "/v1/pool", json={"op": "avg", "kernel": kernel, "stride": 1, "nan": "omit", "tensor": tensor}
        )
        assert answer.status_code == 200, answer.text
    after = read(client)
    name = "poolserve_pooling_session"
    assert after[f"{name}_misses_total", ""] > before[f"{name}_misses_total", ""]
    assert after[f"{name}s", ""] > before[f"{name}s", ""]


def test_every_queue_is_there(client: TestClient) -> None:
    seen = read(client)
    for queue in ("colour", "grey", "pool"):
        assert seen["poolserve_waiting_requests", queue] == 0
        assert seen["poolserve_refused_requests_total", queue] == 0


def test_batches_and_their_pixels_are_counted(client: TestClient, rng: np.random.Generator) -> None:
    def counted() -> dict[tuple[str, str], float]:
        return {
            (sample.name, sample.labels.get("kind", "") + sample.labels.get("use", "")): sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
            if sample.labels.get("model") == "colour" and ("batches" in sample.name or "pixels" in sample.name)
        }

    assert counted() == {
        ("poolserve_batches_total", "plain"): 0,
        ("poolserve_batches_total", "ragged"): 0,
        ("poolserve_canvas_pixels_total", "used"): 0,
        ("poolserve_canvas_pixels_total", "wasted"): 0,
    }
    height, width = (int(side) for side in rng.integers(8, 40, 2))
    picture = encode(rng.integers(0, 256, (height, width, 3), np.uint8), "PNG")
    assert client.post("/v1/classify?model=colour", content=picture).status_code == 200
    after = counted()
    assert after["poolserve_batches_total", "plain"] == 1  # a lone image needs no canvas on the CPU
    assert after["poolserve_canvas_pixels_total", "used"] == height * width

"""POST /v1/classify with images larger than one canvas: answered as if whole, in a queue of their own; each mistake its error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi import FastAPI
from onnx import helper
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.codecs.images import decode
from service.runtime.model import Model
from service.runtime.repository import Repository
from service.runtime.tile_graphs import TileGraphs
from service.settings import Settings
from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.pictures import encode, exif, noise, stored_as, textured
from tests.service.api.colour import GOOD, assert_healthy, assert_result
from tests.service.api.test_inference import Call
from tests.tiny import TinyClassifier, card

CANVAS = 2048  # pixels: what is larger is tiled


def picture(rng: np.random.Generator, channels: int = 3) -> np.ndarray:
    """Larger than a canvas."""
    return noise(int(rng.integers(60, 150)), int(rng.integers(60, 150)), channels, rng)


def model_of(client: TestClient, name: str = "colour") -> Model:
    model: Model = client.app.state.poolserve.repository.models[name]  # type: ignore[attr-defined]
    return model


def tiles_done(client: TestClient) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.labels.get("model") == "colour"]
    assert [sample.value for sample in samples if sample.name == "poolserve_waiting_tiles"] == [0]
    return next(sample.value for sample in samples if sample.name == "poolserve_tiles_total")


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client(max_canvas_pixels=CANVAS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_answer_is_that_of_the_whole_image(
    client: TestClient, image_format: str, orientation: int, rng: np.random.Generator
) -> None:
    stored = stored_as(picture(rng), orientation)
    data = encode(stored, image_format, exif=exif(orientation))
    response = client.post("/v1/classify?model=colour", content=data)
    assert response.status_code == 200, response.text
    assert_result(response.json()["results"][0], decode(data, channels="RGB", max_pixels=10**6))
    assert tiles_done(client) > 1
    assert model_of(client).tally.plain == 0  # nothing of it ran whole
    assert_healthy(client)


def test_grey_model_gets_luma(client: TestClient, rng: np.random.Generator) -> None:
    data = encode(textured(100, 120, int(rng.integers(2**32))), "JPEG", quality=90)
    grey = decode(data, channels="L", max_pixels=10**6)
    response = client.post("/v1/classify?model=grey&top=3", content=data)
    logits = TinyClassifier.random(2, channels=1).logits(grey, card("L").preprocessing)
    e = np.exp(logits - logits.max())
    for prediction in response.json()["results"][0]["predictions"]:
        assert abs(prediction["probability"] - e[prediction["index"]] / e.sum()) <= 1e-4


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "GIF", "WebP"])
def test_every_format_is_tiled(client: TestClient, image_format: str, rng: np.random.Generator) -> None:
    data = encode(picture(rng), image_format)
    response = client.post("/v1/classify?model=colour", content=data)
    assert_result(response.json()["results"][0], decode(data, channels="RGB", max_pixels=10**6))
    assert tiles_done(client) > 1


def test_large_and_small_in_one_request_keep_their_order(client: TestClient, rng: np.random.Generator) -> None:
    pictures = [picture(rng), noise(5, 7, 3, rng), picture(rng), noise(9, 4, 3, rng)]
    files = [("image", (f"{i}.png", encode(pixels, "PNG"))) for i, pixels in enumerate(pictures)]
    response = client.post("/v1/classify?model=colour", files=files)
    for result, pixels in zip(response.json()["results"], pictures, strict=True):
        assert_result(result, pixels)
    assert_healthy(client)
    tiles = model_of(client).tiles
    assert tiles is not None
    assert (tiles.admission.waiting, tiles.admission.backlog) == (0, 0)


def test_limit_is_that_of_tiled_images(make_client: MakeClient, rng: np.random.Generator) -> None:
    """max_pixels is what is held at once: an image may have more, where its rows can be had."""
    client = make_client(max_canvas_pixels=CANVAS, max_pixels=9_000, max_tiled_pixels=15_000)
    pixels = noise(100, 150, 3, rng)
    response = client.post("/v1/classify?model=colour", content=encode(pixels, "PNG"))
    assert_result(response.json()["results"][0], pixels)
    large = client.post("/v1/classify?model=colour", content=encode(noise(101, 150, 3, rng), "PNG"))
    assert_error(large, 413, "payload_too_large", "at most 15000 pixels", "150x101")
    whole = client.post("/v1/classify?model=colour", content=encode(pixels, "GIF"))
    assert_error(whole, 413, "payload_too_large", "9000 pixels of a GIF that cannot be decoded row by row", "150x100")
    assert_healthy(client)


def test_truncated_file_is_a_422_and_names_its_image(client: TestClient, rng: np.random.Generator) -> None:
    data = encode(noise(120, 130, 3, rng), "JPEG", quality=90)
    for cut in (data[: len(data) // 2], data[:-2]):
        assert_error(client.post("/v1/classify?model=colour", content=cut), 422, "invalid_image", "truncated")
        files = [("image", ("a.jpg", data)), ("image", ("b.jpg", cut))]
        response = client.post("/v1/classify?model=colour", files=files)
        assert_error(response, 422, "invalid_image", "images[1]: ", "truncated")
    assert_healthy(client)


def test_model_that_cannot_be_tiled_says_why(tmp_path: Path, rng: np.random.Generator) -> None:
    """What is above each channel's mean goes on: in the middle of the network a tile alone does not know it."""
    network = TinyClassifier.random(3).to_onnx(card())
    nodes = list(network.graph.node)
    place = next(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    nodes[place].output[0] = "before"
    means = helper.make_node("ReduceMean", ["before", "axes"], ["means"], name="means", keepdims=1)
    above = helper.make_node("Sub", ["before", "means"], ["above"], name="above")
    again = helper.make_node("Relu", ["above"], ["r"], name="again")
    del network.graph.node[:]
    network.graph.node.extend([*nodes[: place + 1], means, above, again, *nodes[place + 1 :]])
    folder = tmp_path / "centred" / "1"
    folder.mkdir(parents=True)
    onnx.save(network, folder / "model.onnx")
    settings = Settings(models=tmp_path, provider="cpu", max_canvas_pixels=CANVAS, max_pixels=10_000)
    with TestClient(create_app(settings, Repository.load(settings))) as client:
        reasons = client.get("/v1/models/centred").json()["tiling_reasons"]
        assert reasons
        response = client.post("/v1/classify", content=encode(noise(110, 100, 3, rng), "PNG"))
        assert_error(response, 413, "payload_too_large", "at most 10000 pixels, the image has 100x110", reasons[0])
        assert client.post("/v1/classify", content=encode(noise(90, 100, 3, rng), "PNG")).status_code == 200


def test_limit_that_no_tile_keeps_to_is_a_413(make_client: MakeClient, rng: np.random.Generator) -> None:
    client = make_client(max_canvas_pixels=CANVAS, max_pixels=200)
    response = client.post("/v1/classify?model=colour", content=encode(noise(90, 100, 3, rng), "PNG"))
    assert_error(response, 413, "payload_too_large", "needs tiles of", "200 of the image are held")


def test_time_limit_that_has_passed_is_a_504(client: TestClient, rng: np.random.Generator) -> None:
    data = encode(picture(rng), "PNG")
    response = client.post("/v1/classify?model=colour", content=data, headers={"X-Request-Timeout": "1e-9"})
    assert_error(response, 504, "timeout")
    assert_healthy(client)


# While a large image runs


class Gate:
    """Holds the tiles of the `colour` model back until the test lets them go on."""

    def __init__(self, model: Model) -> None:
        assert model.tiles is not None
        self.tiles = model.tiles
        self.entered, self.gate = threading.Semaphore(0), threading.Semaphore(0)
        load = self.tiles._load

        def gated() -> TileGraphs:
            graphs = load()

            def trunk(*given: Any) -> Any:
                self.entered.release()
                assert self.gate.acquire(timeout=20)
                return graphs.trunk(*given)

            return graphs._replace(trunk=trunk)

        self.tiles._load = gated

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


@pytest.fixture
def app(model_folder: Path) -> Iterator[FastAPI]:
    settings = Settings(models=model_folder, provider="cpu", max_canvas_pixels=CANVAS, max_queue=3)
    repository = Repository.load(settings)
    repository.start()
    yield create_app(settings, repository)
    repository.stop()


def test_small_images_are_answered_and_not_refused_while_a_large_one_runs(
    app: FastAPI, rng: np.random.Generator
) -> None:
    model = app.state.poolserve.repository.models["colour"]
    gate = Gate(model)
    data = encode(noise(300, 100, 3, rng), "PNG")

    async def test() -> None:
        large = Call(app, length=len(data))
        large.body(data)
        running = asyncio.ensure_future(large.run())
        await gate.has_begun()
        assert (model.admission.waiting, gate.tiles.admission.waiting) == (0, 1)
        assert gate.tiles.admission.backlog > 30_000
        rate = model.admission.rate
        for _ in range(20):
            small = Call(app)
            small.body(GOOD)
            assert await small.run() == 200
        assert model.admission.rate > rate / 100  # what tiles take is none of its time
        assert not running.done()
        gate.gate.release(10_000)
        assert await running == 200
        assert (gate.tiles.admission.waiting, gate.tiles.admission.backlog) == (0, 0)

    try:
        asyncio.run(test())
    finally:
        gate.gate.release(10_000)


def test_client_that_goes_away_ends_its_tiles(app: FastAPI, rng: np.random.Generator) -> None:
    gate = Gate(app.state.poolserve.repository.models["colour"])
    data = encode(noise(300, 100, 3, rng), "PNG")

    async def test() -> None:
        large = Call(app, length=len(data))
        large.body(data)
        running = asyncio.ensure_future(large.run())
        await gate.has_begun()
        large.disconnect()
        assert await running is None  # there is nobody to answer
        assert (gate.tiles.admission.waiting, gate.tiles.admission.backlog) == (0, 0)
        gate.gate.release(1)

    try:
        asyncio.run(test())
    finally:
        gate.gate.release(10_000)
    gate.tiles.stop()
    assert 0 < gate.tiles.done < 300 * 100 // CANVAS  # the batch that ran, and no more
    assert gate.tiles.waiting == 0
    gate.tiles.stop = lambda: None  # type: ignore[method-assign]


def test_more_large_images_than_the_queue_has_places_are_refused(app: FastAPI, rng: np.random.Generator) -> None:
    gate = Gate(app.state.poolserve.repository.models["colour"])
    data = encode(picture(rng), "PNG")

    async def test() -> None:
        calls = [Call(app, length=len(data)) for _ in range(3)]
        running = []
        for call in calls:  # the queue has three places
            call.body(data)
            running.append(asyncio.ensure_future(call.run()))
            while gate.tiles.admission.waiting < len(running):
                await asyncio.sleep(0)
        late = Call(app, length=len(data))
        late.body(data)
        assert await late.run() == 429
        gate.gate.release(10_000)
        assert [await each for each in running] == [200] * 3

    try:
        asyncio.run(test())
    finally:
        gate.gate.release(10_000)

"""Tiles where something fails: damage, a run, a graph or a client that leaves hurts its own image alone, and nothing is kept."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from service.codecs.header import ImageHeader
from service.codecs.rows import Rows
from service.errors import DeadlineExceeded, InternalError, InvalidImage
from service.runtime.admission import Admission
from service.runtime.batcher import Answer
from service.runtime.tiles import Tiles
from tests.claims import relative_error
from tests.pictures import noise
from tests.service.runtime.box_trunk import GEOMETRY, BoxTrunk, answer
from tests.service.runtime.tiled import LATER, LIMITS, has_begun, rows_of, with_tiles


def test_a_cancelled_client_frees_its_turn(rng: np.random.Generator) -> None:
    gone, stays = noise(2000, 100, 3, rng), noise(200, 200, 3, rng)

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        assert trunk.gate is not None
        first = asyncio.ensure_future(tiles.submit(rows_of(gone, rng), LATER))
        await has_begun(trunk)
        second = asyncio.ensure_future(tiles.submit(rows_of(stays, rng), LATER))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        trunk.gate.release(10_000)
        assert relative_error((await second).outputs[0], answer(stays)) <= 1e-12

    trunk = with_tiles(test, gated=True)
    assert len({shape for place, shape in trunk.batches if place[2] == 2000}) == 1  # the batch that ran, and no more
    assert sum(place[2] == 2000 for place, _ in trunk.batches) <= 10_000 // 4096


def test_nothing_is_kept_of_an_image_that_has_ended(rng: np.random.Generator) -> None:
    """Not even until the next one comes; whether it was answered, damaged, or given up."""

    class Held(np.ndarray):
        """Rows that can be referred to weakly."""

    kept: list[weakref.ref[Held]] = []
    image = noise(300, 100, 3, rng)

    def rows(*, damaged: bool = False) -> Rows:
        pixels = image.copy().view(Held)
        kept.append(weakref.ref(pixels))

        def bands() -> Iterator[np.ndarray]:
            yield pixels[:250]
            if damaged:
                try:
                    raise OSError("broken data")
                except OSError as error:
                    raise InvalidImage("JPEG: truncated or corrupt") from error
            yield pixels[250:]

        return Rows(ImageHeader("JPEG", 100, 300), 3, bands())

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        await tiles.submit(rows(), LATER)
        found = await asyncio.gather(tiles.submit(rows(damaged=True), LATER), return_exceptions=True)
        assert isinstance(found[0], InvalidImage)
        found += await asyncio.gather(tiles.submit(rows(), 0.0), return_exceptions=True)
        assert isinstance(found[1], DeadlineExceeded)
        await asyncio.to_thread(tiles.stop)
        tiles.stop = lambda: None  # type: ignore[method-assign]
        del found  # the errors know by which way they came
        assert [reference() is None for reference in kept] == [True] * 3  # without the garbage collector
        assert trunk.released == 3

    with_tiles(test)


def test_a_failing_run_is_a_500_of_its_image_alone(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    class Once(BoxTrunk):
        def trunk(self, pixels: Any, extents: np.ndarray, owned: Any) -> Any:
            if extents[0, 2] == 2000:
                raise RuntimeError("secret")
            return super().trunk(pixels, extents, owned)

    images = [noise(2000, 100, 3, rng), noise(200, 200, 3, rng)]

    async def test() -> None:
        tiles = Tiles(Once().load, GEOMETRY, LIMITS, name="test", admission=Admission(1e6, max_waiting=10))
        tiles.start()
        courses = [asyncio.ensure_future(tiles.submit(rows_of(image, rng), LATER)) for image in images]
        assert relative_error((await courses[1]).outputs[0], answer(images[1])) <= 1e-12
        with pytest.raises(InternalError) as caught:
            await courses[0]
        assert "secret" not in caught.value.message
        await asyncio.to_thread(tiles.stop)
        assert tiles.waiting == 0

    asyncio.run(test())
    assert "failed on 100×2000" in caplog.text


def test_damage_within_the_rows_is_a_422_of_its_image_alone(rng: np.random.Generator) -> None:
    image = noise(200, 200, 3, rng)

    def damaged() -> Iterator[np.ndarray]:
        yield image[:150]
        raise InvalidImage("JPEG: truncated or corrupt")

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        broken = Rows(ImageHeader("JPEG", 200, 200), 3, damaged())
        found = await asyncio.gather(
            tiles.submit(broken, LATER), tiles.submit(rows_of(image, rng), LATER), return_exceptions=True
        )
        assert isinstance(found[0], InvalidImage)
        assert isinstance(found[1], Answer)
        assert relative_error(found[1].outputs[0], answer(image)) <= 1e-12

    with_tiles(test)


def test_graphs_that_cannot_be_loaded_are_a_500(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> Any:
        raise ValueError("ONNX Runtime refuses the graph")

    async def test() -> None:
        tiles = Tiles(load, GEOMETRY, LIMITS, name="test", admission=Admission(1e6, max_waiting=10))
        tiles.start()
        with pytest.raises(InternalError):
            await tiles.submit(rows_of(noise(200, 200, 3, rng), rng), LATER)
        assert tiles.alive
        await asyncio.to_thread(tiles.stop)

    asyncio.run(test())
    assert "refuses the graph" in caplog.text

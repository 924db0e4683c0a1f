"""Tiles alone, with a trunk in NumPy and rows made by hand: what comes out, and whom a fault hurts. No sleeps, no sessions."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

from service.codecs.header import ImageHeader
from service.codecs.rows import Rows
from service.errors import DeadlineExceeded, InternalError, InvalidImage, PayloadTooLarge
from service.runtime.admission import Admission
from service.runtime.batcher import Answer
from service.runtime.grid import cut
from service.runtime.strips import strips
from service.runtime.tile_batches import tile_batches
from service.runtime.tiles import Limits, Tiles
from tests.claims import relative_error
from tests.pictures import noise, stored_as
from tests.service.runtime.box_trunk import GEOMETRY, BoxTrunk, answer

LATER = 1e9
LIMITS = Limits(canvas_pixels=4096, batch_pixels=10_000, strip_pixels=100_000)


def rows_of(image: np.ndarray, rng: np.random.Generator, orientation: int = 1) -> Rows:
    """The image in bands of any height, as a file of this orientation stores it."""
    stored = stored_as(image, orientation)
    cuts = np.sort(rng.integers(0, len(stored) + 1, 6))
    bands = (band for band in np.split(stored, cuts) if len(band))
    return Rows(ImageHeader("PNG", image.shape[1], image.shape[0], orientation), image.shape[2], bands)


def with_tiles(
    test: Callable[[Tiles, BoxTrunk], Coroutine[Any, Any, None]],
    *,
    gated: bool = False,
    limits: Limits = LIMITS,
    clock: Callable[[], float] | None = None,
) -> BoxTrunk:
    trunk = BoxTrunk(gated=gated)
    given = {} if clock is None else {"clock": clock}
    admission = Admission(1e6, max_waiting=10)
    tiles = Tiles(trunk.load, GEOMETRY, limits, name="test", admission=admission, **given)
    tiles.start()
    try:
        asyncio.run(test(tiles, trunk))
    finally:
        if trunk.gate is not None:
            trunk.gate.release(10_000)
        tiles.stop()
    assert not tiles.alive
    assert tiles.waiting == 0
    return trunk


async def has_begun(trunk: BoxTrunk) -> None:
    assert await asyncio.to_thread(trunk.entered.acquire, timeout=20)


# Strips and batches


def test_strips_are_the_rows_of_their_bounds(rng: np.random.Generator) -> None:
    for _ in range(50):
        image = noise(int(rng.integers(1, 60)), int(rng.integers(1, 9)), 3, rng)
        height, step = len(image), int(rng.integers(1, 20))
        length = step + int(rng.integers(0, 30))
        bounds = [(start, min(height, start + length)) for start in range(0, max(1, height - length + step), step)]
        found = [strip.copy() for strip in strips(rows_of(image, rng), bounds)]
        assert bounds[-1][1] == height
        for (start, stop), strip in zip(bounds, found, strict=True):
            np.testing.assert_array_equal(strip, image[start:stop])


def test_strips_say_that_rows_are_missing(rng: np.random.Generator) -> None:
    image = noise(10, 4, 3, rng)
    with pytest.raises(ValueError, match="expected 12 rows, got 10"):
        list(strips(rows_of(image, rng), [(0, 12)]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_tile_is_its_part_of_the_upright_image(orientation: int, rng: np.random.Generator) -> None:
    image = noise(int(rng.integers(1, 300)), int(rng.integers(1, 300)), int(rng.choice([1, 3])), rng)
    height, width, _ = image.shape
    turned = orientation >= 5
    grid = cut(height, width, GEOMETRY, max_canvas=4096, max_strip=2**20, stored_as_columns=turned)
    seen: dict[tuple[int, int], np.ndarray] = {}
    owned: dict[tuple[int, int], list[int]] = {}
    for batch in tile_batches(rows_of(image, rng, orientation), grid, 10_000):
        assert batch.pixels.shape[1:3] == (grid.rows.length, grid.columns.length)
        for canvas, extent, own in list(zip(batch.pixels, batch.extents, batch.owned, strict=True))[: batch.tiles]:
            y, x, *size = map(int, extent)
            assert size == [height, width]
            assert (y, x) not in seen
            part = image[y : y + grid.rows.length, x : x + grid.columns.length]
            np.testing.assert_array_equal(canvas[: part.shape[0], : part.shape[1]], part)
            seen[y, x], owned[y, x] = part, own.tolist()
    assert len(seen) == grid.tiles
    assert sum((bottom - top) * (right - left) for top, left, bottom, right in owned.values()) == height * width


# Answers


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiled_is_whole(orientation: int, rng: np.random.Generator) -> None:
    image = noise(int(rng.integers(1, 400)), int(rng.integers(1, 400)), 3, rng)

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        found = await tiles.submit(rows_of(image, rng, orientation), LATER)
        assert relative_error(found.outputs[0], answer(image)) <= 1e-12

    trunk = with_tiles(test)
    assert {shape[1:3] for _, shape in trunk.batches} == {trunk.batches[0][1][1:3]}  # one shape for one image
    assert trunk.released == 1


def test_many_images_take_turns_and_each_gets_its_own_answer(rng: np.random.Generator) -> None:
    images = [noise(int(rng.integers(150, 300)), int(rng.integers(150, 300)), 3, rng) for _ in range(9)]

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        found = await asyncio.gather(*(tiles.submit(rows_of(image, rng), LATER) for image in images))
        for image, each in zip(images, found, strict=True):
            assert relative_error(each.outputs[0], answer(image)) <= 1e-12
        assert tiles.done == len({place for place, _ in trunk.batches})

    trunk = with_tiles(test)
    assert trunk.loads == 1


def test_a_small_image_does_not_wait_for_a_huge_one_to_end(rng: np.random.Generator) -> None:
    huge, small = noise(2000, 200, 3, rng), noise(70, 70, 3, rng)

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        assert trunk.gate is not None
        first = asyncio.ensure_future(tiles.submit(rows_of(huge, rng), LATER))
        await has_begun(trunk)
        second = asyncio.ensure_future(tiles.submit(rows_of(small, rng), LATER))
        await asyncio.sleep(0)
        trunk.gate.release(8)  # eight batches: the huge one has more than twenty
        found = await second
        assert relative_error(found.outputs[0], answer(small)) <= 1e-12
        assert not first.done()
        trunk.gate.release(10_000)
        assert relative_error((await first).outputs[0], answer(huge)) <= 1e-12

    trunk = with_tiles(test, gated=True)
    assert len({place for place, _ in trunk.batches if place[2] == 2000}) > 20


def test_no_graph_is_loaded_before_the_first_image() -> None:
    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        assert trunk.loads == 0

    assert with_tiles(test).loads == 0


# Limits


def test_an_image_that_cannot_be_cut_is_a_413_at_once(rng: np.random.Generator) -> None:
    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        with pytest.raises(PayloadTooLarge, match="and 100 of the image are held"):
            await tiles.submit(rows_of(noise(300, 300, 3, rng), rng), LATER)

    assert with_tiles(test, limits=Limits(4096, 4096, 100)).loads == 0


def test_the_deadline_is_checked_between_batches(rng: np.random.Generator) -> None:
    now = [0.0]

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        assert trunk.gate is not None
        course = asyncio.ensure_future(tiles.submit(rows_of(noise(300, 300, 3, rng), rng), 100.0))
        await has_begun(trunk)
        now[0] = 100.0
        trunk.gate.release(10_000)
        with pytest.raises(DeadlineExceeded, match=r"the time limit passed after [1-9]\d* of \d+ tiles"):
            await course

    trunk = with_tiles(test, gated=True, clock=lambda: now[0])
    assert len({shape for _, shape in trunk.batches}) == 1


def test_what_would_be_late_by_far_is_given_up_early(rng: np.random.Generator) -> None:
    now = [0.0]

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        assert trunk.gate is not None
        course = asyncio.ensure_future(tiles.submit(rows_of(noise(2000, 200, 3, rng), rng), 100.0))
        await has_begun(trunk)
        now[0] = 90.0  # for the first of more than twenty batches
        trunk.gate.release(10_000)
        with pytest.raises(
            DeadlineExceeded, match=r"took 90\.0 s, so that all would take about \d+ s; the time limit is 100 s"
        ):
            await course

    with_tiles(test, gated=True, clock=lambda: now[0])


# Faults: each hurts only itself


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


def test_progress_is_logged_and_counted(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    now = iter(range(0, 10**6, 6))
    caplog.set_level("INFO")

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        await tiles.submit(rows_of(noise(400, 400, 3, rng), rng), LATER)
        assert (tiles.done, tiles.waiting) == (len({place for place, _ in trunk.batches}), 0)

    with_tiles(test, clock=lambda: float(next(now)))
    assert "model test: 400×400: " in caplog.text
    assert " tiles, 100 % in " in caplog.text

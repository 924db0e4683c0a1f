"""Tiles alone, with a trunk in NumPy and rows made by hand: what comes out, in which turns, and within which limits."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service.errors import DeadlineExceeded, PayloadTooLarge
from service.runtime.tiles import Limits, Tiles
from tests.claims import relative_error
from tests.pictures import noise
from tests.service.runtime.box_trunk import BoxTrunk, answer
from tests.service.runtime.tiled import LATER, has_begun, rows_of, with_tiles


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


def test_progress_is_logged_and_counted(rng: np.random.Generator, caplog: pytest.LogCaptureFixture) -> None:
    now = iter(range(0, 10**6, 6))
    caplog.set_level("INFO")

    async def test(tiles: Tiles, trunk: BoxTrunk) -> None:
        await tiles.submit(rows_of(noise(400, 400, 3, rng), rng), LATER)
        assert (tiles.done, tiles.waiting) == (len({place for place, _ in trunk.batches}), 0)

    with_tiles(test, clock=lambda: float(next(now)))
    assert "model test: 400×400: " in caplog.text
    assert " tiles, 100 % in " in caplog.text

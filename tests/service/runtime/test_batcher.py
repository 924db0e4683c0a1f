"""The batcher alone, with a run that waits for the test: who goes together and in which order, and how many may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from service.errors import Overloaded
from service.runtime.batcher import Batcher
from service.runtime.grouping import Grouping
from tests.service.runtime.gated import LATER, GatedRun, picture, settle, values, with_batcher


def test_lone_image_leaves_at_once() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        run.gate.release()
        answer = await batcher.submit(picture(7), LATER)
        assert values([answer]) == [7]
        assert answer.batch == 1
        assert run.batches == [(1, 4, 4, 3)]

    with_batcher(test)


def test_what_came_during_a_run_goes_together_in_order() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in range(1, 9)]
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, *crowd)) == list(range(9))
        assert run.batches == [(1, 4, 4, 3), (8, 4, 4, 3)]

    with_batcher(test)


def test_sizes_do_not_mix_and_the_oldest_goes_first() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        sizes = [(4, 4), (2, 8), (4, 4), (2, 8), (1, 1)]
        crowd = [asyncio.ensure_future(batcher.submit(picture(i, *size), LATER)) for i, size in enumerate(sizes)]
        await settle()
        run.gate.release(4)
        assert values(await asyncio.gather(first, *crowd)) == [0, 0, 1, 2, 3, 4]
        assert run.batches[1:] == [(2, 4, 4, 3), (2, 2, 8, 3), (1, 1, 1, 3)]

    with_batcher(test)


@pytest.mark.parametrize(
    ("options", "largest"), [({"max_pixels": 50}, 3), ({"max_images": 2}, 2), ({"max_pixels": 1}, 1)]
)
def test_batch_keeps_its_budget(options: dict[str, int], largest: int) -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in range(7)]
        await settle()
        run.gate.release(100)
        assert values(await asyncio.gather(first, *crowd)) == [0, *range(7)]
        counts = [shape[0] for shape in run.batches[1:]]
        assert counts == [largest] * (7 // largest) + ([7 % largest] if 7 % largest else [])

    with_batcher(test, **options)


def test_stop_finishes_what_is_queued() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        answers = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in range(3)]
        await run.has_begun()
        stopping = asyncio.ensure_future(asyncio.to_thread(batcher.stop))
        run.gate.release(100)
        assert values(await asyncio.gather(*answers)) == [0, 1, 2]
        await stopping
        assert not batcher.alive

    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=Grouping(None, max_pixels=16))
    batcher.start()
    asyncio.run(test(batcher, run))


def test_full_queue_refuses_who_comes_and_hurts_nobody_in_it() -> None:
    async def test() -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in (1, 2, 3)]
        await settle()
        with pytest.raises(Overloaded, match="among 3 images"):
            await batcher.submit(picture(4), LATER)
        run.gate.release(2)
        assert values(await asyncio.gather(first, *crowd)) == [0, 1, 2, 3]
        run.gate.release()
        assert values([await batcher.submit(picture(5), LATER)]) == [5]

    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=Grouping(None, max_pixels=1000), max_waiting=3)
    batcher.start()
    asyncio.run(test())
    batcher.stop()


def test_random_crowds_get_their_own_answers(rng: np.random.Generator) -> None:
    """Sizes and values at random, no gate: each gets its own sum, whatever ran together."""

    def run(pixels: np.ndarray) -> Sequence[np.ndarray]:
        return [pixels.astype(np.int64).sum((1, 2, 3)), pixels[:, 0, 0, :]]

    images = [rng.integers(0, 256, (*rng.integers(1, 4, 2), 3), np.uint8) for _ in range(300)]

    async def test() -> None:
        answers = await asyncio.gather(*(batcher.submit(image, LATER) for image in images))
        for image, answer in zip(images, answers, strict=True):
            assert answer.outputs[0] == image.sum()
            assert (answer.outputs[1] == image[0, 0]).all()

    batcher = Batcher(run, name="test", grouping=Grouping(None, max_pixels=40))
    batcher.start()
    asyncio.run(test())
    batcher.stop()

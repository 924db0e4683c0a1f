"""Runs on the event loop: what came in one tick goes together, a tick has a budget, and a fault hurts only itself. No sleeps."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InternalError
from service.runtime.batcher import Answer
from service.runtime.tick import Tick

LATER = 1e12  # a deadline that never comes


class FirstPixel:
    """A run whose output is each image's first pixel; 255 is poison."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        self.batches.append(pixels.shape)
        first = pixels[:, 0, 0, 0]
        if (first == 255).any():
            raise RuntimeError("poison")
        return [first.astype(np.float32), pixels]


def picture(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def values(answers: Sequence[Answer]) -> list[float]:
    return [float(answer.outputs[0]) for answer in answers]


def with_tick(
    test: Callable[[Tick, FirstPixel], Coroutine[Any, Any, None]],
    *,
    budget: float = 10_000,
    max_batch: int | None = None,
) -> None:
    """Give a test a tick whose images cost as many seconds as they have elements."""
    run = FirstPixel()
    tick = Tick(run, name="test", cost=math.prod, budget_s=budget, max_batch=max_batch)
    asyncio.run(test(tick, run))


def test_lone_image_runs_in_its_tick() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        answer = await tick.submit(picture(7), LATER)
        assert (values([answer]), answer.batch, run.batches) == ([7], 1, [(1, 4, 4, 3)])
        assert answer.queue_s >= 0 <= answer.run_s

    with_tick(test)


def test_nothing_runs_within_submit() -> None:
    """Else what comes in the same tick could not go with it."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        future = tick.submit(picture(7), LATER)
        assert run.batches == []
        await future

    with_tick(test)


def test_what_came_in_one_tick_goes_together_in_order() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        answers = await asyncio.gather(*(tick.submit(picture(i), LATER) for i in range(9)))
        assert values(answers) == list(range(9))
        assert [answer.batch for answer in answers] == [9] * 9
        assert run.batches == [(9, 4, 4, 3)]
        assert values([await tick.submit(picture(3), LATER)]) == [3]
        assert run.batches[1:] == [(1, 4, 4, 3)]

    with_tick(test)


def test_what_tasks_of_one_tick_send_goes_together() -> None:
    """As requests do: each is a task of its own."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        async def request(value: int) -> Answer:
            return await tick.submit(picture(value), LATER)

        assert values(await asyncio.gather(*map(request, range(9)))) == list(range(9))
        assert run.batches == [(9, 4, 4, 3)]

    with_tick(test)


def test_shapes_do_not_mix() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        sizes = [(4, 4), (2, 8), (4, 4), (2, 8), (1, 1)]
        crowd = [tick.submit(picture(i, *size), LATER) for i, size in enumerate(sizes)]
        assert values(await asyncio.gather(*crowd)) == [0, 1, 2, 3, 4]
        assert run.batches == [(2, 4, 4, 3), (2, 2, 8, 3), (1, 1, 1, 3)]

    with_tick(test)


def test_budget_ends_a_tick_and_others_get_their_turn() -> None:
    """7 images of 48 elements with a budget of 100: two a tick, and whoever waits for the loop runs between."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        def look() -> None:
            seen.append(len(run.batches))
            if seen[-1] < 4:
                loop.call_soon(look)

        crowd = [tick.submit(picture(i), LATER) for i in range(7)]
        loop.call_soon(look)
        assert values(await asyncio.gather(*crowd)) == list(range(7))
        assert [shape[0] for shape in run.batches] == [2, 2, 2, 1]
        assert seen == [1, 2, 3, 4]

    with_tick(test, budget=100)


@pytest.mark.parametrize(
    ("options", "counts"), [({"max_batch": 3}, [3, 3, 1]), ({"budget": 1}, [1] * 7), ({"budget": 150}, [3, 3, 1])]
)
def test_batch_keeps_its_limit(options: dict[str, int], counts: list[int]) -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        assert values(await asyncio.gather(*(tick.submit(picture(i), LATER) for i in range(7)))) == list(range(7))
        assert [shape[0] for shape in run.batches] == counts

    with_tick(test, **options)


def test_shape_that_keeps_coming_does_not_keep_another_waiting() -> None:
    """Each tick brings two more of one shape, and has a budget for one run: the other shape still comes to its turn."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        crowd = [tick.submit(picture(0), LATER), tick.submit(picture(1), LATER)]
        other = tick.submit(picture(9, 2, 8), LATER)
        while not other.done():
            assert len(run.batches) < 10
            crowd += [tick.submit(picture(2), LATER), tick.submit(picture(3), LATER)]
            await asyncio.sleep(0)
        assert values([await other]) == [9]
        await asyncio.gather(*crowd)

    with_tick(test, budget=48)


def test_failed_batch_fails_only_the_image_that_is_the_cause() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        crowd = [tick.submit(picture(value), LATER) for value in (1, 255, 3)]
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert isinstance(results[1], InternalError)
        assert values([results[0], results[2]]) == [1, 3]  # type: ignore[list-item]
        assert values([await tick.submit(picture(9), LATER)]) == [9]  # and the next tick is as ever

    with_tick(test)


def test_image_of_another_dtype_hurts_nobody() -> None:
    """Batches are of one shape; if a caller ever mixes dtypes, each still gets its own answer."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        odd = np.full((4, 4, 3), 5, np.float64)
        assert values(await asyncio.gather(tick.submit(picture(1), LATER), tick.submit(odd, LATER))) == [1, 5]

    with_tick(test)


def test_wrong_number_of_outputs_is_an_error_not_a_mix_up() -> None:
    async def test() -> None:
        tick = Tick(lambda pixels: [np.zeros(len(pixels) + 1)], name="test", cost=math.prod)
        results = await asyncio.gather(*(tick.submit(picture(i), LATER) for i in range(2)), return_exceptions=True)
        assert [type(result) for result in results] == [InternalError] * 2

    asyncio.run(test())


def test_cancelled_member_does_not_disturb_its_batch_and_does_not_run() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        async def request(value: int) -> Answer:
            return await tick.submit(picture(value), LATER)

        crowd = [asyncio.ensure_future(request(i)) for i in range(3)]
        asyncio.get_running_loop().call_soon(crowd[1].cancel)  # after they have all sent, before the tick
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert values([results[0], results[2]]) == [0, 2]  # type: ignore[list-item]
        assert run.batches == [(2, 4, 4, 3)]

    with_tick(test)


def test_expired_member_is_told_so_and_does_not_run() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        crowd = [tick.submit(picture(0), LATER), tick.submit(picture(1), time.monotonic())]
        results = await asyncio.gather(*crowd, return_exceptions=True)
        assert isinstance(results[1], DeadlineExceeded)
        assert values([results[0]]) == [0]  # type: ignore[list-item]
        assert run.batches == [(1, 4, 4, 3)]

    with_tick(test)


def test_queue_of_the_cancelled_only_runs_nothing() -> None:
    async def test(tick: Tick, run: FirstPixel) -> None:
        gone = tick.submit(picture(0), LATER)
        gone.cancel()
        await asyncio.sleep(0)
        assert run.batches == []
        assert values([await tick.submit(picture(1), LATER)]) == [1]

    with_tick(test)


def test_random_crowds_get_their_own_answers(rng: np.random.Generator) -> None:
    """Shapes, values and budgets at random: each gets its own sum, whatever ran together."""

    def run(pixels: np.ndarray) -> Sequence[np.ndarray]:
        return [pixels.astype(np.int64).sum((1, 2, 3)), pixels[:, 0, 0, :]]

    images = [rng.integers(0, 256, (*rng.integers(1, 4, 2), 3), np.uint8) for _ in range(300)]

    async def test() -> None:
        tick = Tick(run, name="test", cost=math.prod, budget_s=int(rng.integers(1, 200)))
        answers = await asyncio.gather(*(tick.submit(image, LATER) for image in images))
        for image, answer in zip(images, answers, strict=True):
            assert answer.outputs[0] == image.sum()
            assert (answer.outputs[1] == image[0, 0]).all()

    asyncio.run(test())


def test_tick_has_room_until_its_budget_is_full() -> None:
    """What comes beyond it goes elsewhere: a crowd's images would hold the event loop one after the other."""

    async def test(tick: Tick, run: FirstPixel) -> None:
        shape = picture(0).shape  # 48 elements: as many seconds
        waiting = []
        while tick.has_room(shape):
            waiting.append(tick.submit(picture(0), LATER))
        assert len(waiting) == 4
        await asyncio.gather(*waiting)
        assert tick.has_room((100, 100, 3))  # one always goes, however large
        assert run.batches == [(4, 4, 4, 3)]

    with_tick(test, budget=200)

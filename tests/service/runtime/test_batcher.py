"""The batcher alone, with a run that waits for the test: no sleeps."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InternalError, Overloaded
from service.runtime.batcher import Answer, Batcher
from service.runtime.canvas import Tally
from service.runtime.choice import Choice
from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.grouping import WINDOW, Grouping

LATER = 1e9  # a deadline that never comes


class GatedRun:
    """A run that begins when the test lets it; its output is the image's first pixel, and 255 is poison."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        self.batches.append(pixels.shape)
        self.entered.release()
        assert self.gate.acquire(timeout=20)
        first = pixels[:, 0, 0, 0]
        if (first == 255).any():
            raise RuntimeError("poison")
        return [first.astype(np.float32)]

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


def picture(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def values(answers: Sequence[Answer]) -> list[float]:
    return [float(answer.outputs[0]) for answer in answers]


async def settle() -> None:
    """Let every task that can go on do so until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def with_batcher(test: Callable[[Batcher, GatedRun], Coroutine[Any, Any, None]], **options: int) -> None:
    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=Grouping(None, **{"max_pixels": 10_000, **options}))
    batcher.start()
    try:
        asyncio.run(test(batcher, run))
    finally:
        run.gate.release(1000)
        batcher.stop()
    assert not batcher.alive


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


def test_failed_batch_fails_only_the_image_that_is_the_cause() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(value), LATER)) for value in (1, 255, 3)]
        await settle()
        run.gate.release(100)
        results = await asyncio.gather(first, *crowd, return_exceptions=True)
        assert isinstance(results[2], InternalError)
        assert values([results[0], results[1], results[3]]) == [0, 1, 3]  # type: ignore[list-item]
        run.gate.release()
        assert values([await batcher.submit(picture(9), LATER)]) == [9]  # and the loop lives on

    with_batcher(test)


def test_wrong_number_of_outputs_is_an_error_not_a_mix_up() -> None:
    def run(pixels: np.ndarray) -> Sequence[np.ndarray]:
        return [np.zeros(len(pixels) + 1, np.float32)]

    async def test() -> None:
        with pytest.raises(InternalError):
            await batcher.submit(picture(1), LATER)

    batcher = Batcher(run, name="test", grouping=Grouping(None, max_pixels=100))
    batcher.start()
    asyncio.run(test())
    batcher.stop()


def test_cancelled_member_does_not_disturb_its_batch_and_does_not_run() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i), LATER)) for i in (1, 2, 3)]
        await settle()
        crowd[1].cancel()
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, crowd[0], crowd[2])) == [0, 1, 3]
        assert run.batches[1] == (2, 4, 4, 3)

    with_batcher(test)


def test_client_that_leaves_during_its_run_hurts_nobody() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        first.cancel()
        second = asyncio.ensure_future(batcher.submit(picture(5), LATER))
        await settle()
        run.gate.release(2)
        assert values([await second]) == [5]
        assert first.cancelled()

    with_batcher(test)


def test_expired_member_is_told_so_and_does_not_run() -> None:
    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        late = asyncio.ensure_future(batcher.submit(picture(1), time.monotonic()))
        good = asyncio.ensure_future(batcher.submit(picture(2), LATER))
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, good)) == [0, 2]
        with pytest.raises(DeadlineExceeded):
            await late
        assert run.batches[1] == (1, 4, 4, 3)

    with_batcher(test)


def test_of_a_long_queue_nobody_runs_who_has_left_or_is_late() -> None:
    """More have left than are looked at for one batch; who came behind them runs, and only they."""

    async def test(batcher: Batcher, run: GatedRun) -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0), LATER))
        await run.has_begun()
        gone = [asyncio.ensure_future(batcher.submit(picture(1), LATER)) for _ in range(WINDOW + 50)]
        late = [asyncio.ensure_future(batcher.submit(picture(2), time.monotonic())) for _ in range(WINDOW + 50)]
        here = [asyncio.ensure_future(batcher.submit(picture(3), LATER)) for _ in range(4)]
        await settle()
        for task in gone:
            task.cancel()
        await settle()
        run.gate.release(2)
        assert values(await asyncio.gather(first, *here)) == [0, 3, 3, 3, 3]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(result, DeadlineExceeded) for result in results)
        assert run.batches[1:] == [(4, 4, 4, 3)]

    with_batcher(test)


@pytest.mark.parametrize("switch_s", [0.0, 0.5], ids=["any shape", "few shapes"])
def test_member_that_leaves_after_the_plan_was_made_does_not_run(switch_s: float) -> None:
    """Three sizes are planned as several batches; while the first runs, members of the later ones leave."""

    async def test() -> None:
        first = asyncio.ensure_future(batcher.submit(picture(0, 9, 9), LATER))
        await run.has_begun()
        crowd = [asyncio.ensure_future(batcher.submit(picture(i, 4 + i % 3, 4), LATER)) for i in range(1, 13)]
        await settle()
        run.gate.release()  # the first; then a batch of the plan begins
        await run.has_begun()
        waiting = [task for task in crowd if not task.done()]
        leaves = [i for i in range(len(crowd)) if (4 + (i + 1) % 3) != run.batches[-1][1]][:5]
        for i in leaves:
            crowd[i].cancel()
        await settle()
        run.gate.release(100)
        results = await asyncio.gather(first, *crowd, return_exceptions=True)
        assert waiting
        for i, result in enumerate(results[1:]):
            if i in leaves:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert values([result]) == [i + 1]  # type: ignore[list-item]
        if not switch_s:
            assert sum(shape[0] for shape in run.batches) == 13 - len(leaves)

    line = Curve.through([(1, 1e-3), (100, 1e-3)])
    grouping = Grouping(Costs(line, BatchCost(1e-3, line), switch_s=switch_s), max_pixels=10_000)
    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=grouping)
    batcher.start()
    try:
        asyncio.run(test())
    finally:
        run.gate.release(1000)
        batcher.stop()


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


class Masked:
    """A masked run: each image's own sum, whatever lies beside it, and its first pixel; 255 is poison."""

    def __init__(self) -> None:
        self.canvases: list[tuple[int, ...]] = []

    def plain(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        if (pixels[:, 0, 0, 0] == 255).any():
            raise RuntimeError("poison")
        return [pixels.astype(np.int64).sum((1, 2, 3)), pixels[:, 0, 0, :]]

    def ragged(self, pixels: np.ndarray, extents: np.ndarray) -> Sequence[np.ndarray]:
        self.canvases.append(pixels.shape)
        if (pixels[:, 0, 0, 0] == 255).any():
            raise RuntimeError("poison")
        sums = [image[:h, :w].astype(np.int64).sum() for image, (_, _, h, w) in zip(pixels, extents, strict=True)]
        return [np.array(sums), pixels[:, 0, 0, :]]


SHARING_PAYS = Costs(
    Curve.through([(1, 1e-2), (10_000, 2e-2)]),
    BatchCost(1e-2, Curve.through([(1, 1e-6), (10_000, 1e-2)])),
    BatchCost(1e-2, Curve.through([(1, 1e-6), (10_000, 1e-2)])),
)
"""A run costs as much as ten thousand pixels."""


def crowd_through(masked: Masked, images: Sequence[np.ndarray], **options: object) -> list[Answer | BaseException]:
    """Queue everything, then start: what runs together does not depend on the machine's speed."""

    async def test() -> list[Answer | BaseException]:
        answers = [asyncio.ensure_future(batcher.submit(image, LATER)) for image in images]
        await settle()
        batcher.start()
        return await asyncio.gather(*answers, return_exceptions=True)

    grouping = Grouping(SHARING_PAYS, max_pixels=100_000)
    batcher = Batcher(masked.plain, name="test", grouping=grouping, run_ragged=masked.ragged, **options)  # type: ignore[arg-type]
    try:
        return asyncio.run(test())
    finally:
        batcher.stop()


def assert_own(image: np.ndarray, answer: Answer | BaseException) -> None:
    assert isinstance(answer, Answer), answer
    assert answer.outputs[0] == image.sum()
    assert (answer.outputs[1] == image[0, 0]).all()


def mixed(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 255, (*rng.integers(1, 40, 2), 3), np.uint8) for _ in range(count)]


def test_different_sizes_share_a_canvas_and_get_their_own_answers_in_order(rng: np.random.Generator) -> None:
    masked, images = Masked(), mixed(rng, 200)
    for image, answer in zip(images, crowd_through(masked, images), strict=True):
        assert_own(image, answer)
    assert max(shape[0] for shape in masked.canvases) > 8


def test_image_that_fails_on_a_canvas_fails_alone(rng: np.random.Generator) -> None:
    masked, images = Masked(), mixed(rng, 40)
    bad = int(rng.integers(40))
    images[bad][0, 0, 0] = 255
    for place, (image, answer) in enumerate(zip(images, crowd_through(masked, images), strict=True)):
        if place == bad:
            assert isinstance(answer, InternalError)
        else:
            assert_own(image, answer)
    assert masked.canvases


def test_canvas_run_that_throws_falls_back_to_images_alone(rng: np.random.Generator) -> None:
    class Broken(Masked):
        def ragged(self, pixels: np.ndarray, extents: np.ndarray) -> Sequence[np.ndarray]:
            self.canvases.append(pixels.shape)
            raise RuntimeError("the session is broken")

    masked, images = Broken(), mixed(rng, 30)
    for image, answer in zip(images, crowd_through(masked, images), strict=True):
        assert_own(image, answer)
        assert isinstance(answer, Answer)
    assert masked.canvases


def test_session_that_always_throws_fails_each_and_the_thread_lives_on() -> None:
    fail = True

    def run(pixels: np.ndarray) -> Sequence[np.ndarray]:
        if fail:
            raise RuntimeError("no memory")
        return [pixels[:, 0, 0, 0]]

    async def test() -> None:
        nonlocal fail
        results = await asyncio.gather(*(batcher.submit(picture(i), LATER) for i in range(5)), return_exceptions=True)
        assert all(isinstance(result, InternalError) for result in results)
        fail = False
        assert values([await batcher.submit(picture(6), LATER)]) == [6]

    batcher = Batcher(run, name="test", grouping=Grouping(None, max_pixels=100))
    batcher.start()
    asyncio.run(test())
    assert batcher.alive
    batcher.stop()


def test_choice_that_throws_lets_the_images_go_alone() -> None:
    class Broken(Grouping):
        def plan(self, sizes: Sequence[tuple[int, int]]) -> Sequence[Choice]:
            raise ZeroDivisionError

    async def test() -> None:
        answers = await asyncio.gather(*(batcher.submit(picture(i), LATER) for i in range(5)))
        assert values(answers) == list(range(5))
        assert all(answer.batch == 1 for answer in answers)

    run = GatedRun()
    run.gate.release(100)
    batcher = Batcher(run, name="test", grouping=Broken(None, max_pixels=100))
    batcher.start()
    asyncio.run(test())
    batcher.stop()


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


def test_pixels_used_and_wasted_are_counted() -> None:
    masked = Masked()
    images = [picture(1, 20, 30), picture(2, 25, 20), picture(3, 22, 31)]

    async def test() -> None:
        answers = [asyncio.ensure_future(batcher.submit(image, LATER)) for image in images]
        await settle()
        batcher.start()
        await asyncio.gather(*answers)
        await batcher.submit(picture(4, 10, 10), LATER)

    grouping = Grouping(SHARING_PAYS, max_pixels=100_000)
    batcher = Batcher(masked.plain, name="test", grouping=grouping, run_ragged=masked.ragged)
    asyncio.run(test())
    batcher.stop()
    used = 20 * 30 + 25 * 20 + 22 * 31
    assert batcher.tally == Tally(plain=1, ragged=1, pixels_used=used + 100, pixels_wasted=3 * 25 * 31 - used)


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

"""The batcher where a run or a choice fails: only the image that is the cause fails, and the thread lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from service.errors import InternalError
from service.runtime.batcher import Batcher
from service.runtime.choice import Choice
from service.runtime.grouping import Grouping
from tests.service.runtime.gated import LATER, GatedRun, picture, settle, values, with_batcher


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

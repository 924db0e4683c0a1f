"""Patience: who waits too long is told, in time and alone; one timer serves all, and nothing is kept for it."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded
from service.runtime.deadline import Patience

LATER_S = 1e6


class Timers(asyncio.SelectorEventLoop):
    """A loop that counts timers."""

    set = 0

    def call_later(self, *arguments: Any, **named: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.set += 1
        return super().call_later(*arguments, **named)


def run(course: Callable[[Timers, Patience[Any]], Coroutine[Any, Any, None]]) -> None:
    loop = Timers()
    try:
        loop.run_until_complete(course(loop, Patience(loop)))
    finally:
        loop.close()


@pytest.mark.parametrize("last", [False, True], ids=["in order", "earlier than another"])
def test_who_is_due_is_told_and_nobody_else(last: bool, rng: np.random.Generator) -> None:
    async def course(loop: Timers, patience: Patience[int]) -> None:
        now = time.monotonic()
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(20)]
        due = [bool(late) for late in rng.integers(0, 2, 20)] + [True]
        futures.append(loop.create_future())
        order = sorted(range(20), key=lambda place: not due[place])
        for place in [*order, 20] if last else [20, *order]:
            patience.watch(futures[place], now if due[place] else now + LATER_S)
        for place in np.flatnonzero(due).tolist():
            with pytest.raises(DeadlineExceeded, match="before the answer was there"):
                await futures[place]
        assert [future.done() for future in futures] == due

    run(course)


def test_a_crowd_with_one_patience_has_one_timer() -> None:
    async def course(loop: Timers, patience: Patience[int]) -> None:
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(1000)]
        for place, future in enumerate(futures):
            patience.watch(future, time.monotonic() + LATER_S + place)
        assert loop.set == 1

    run(course)


def test_timer_goes_on_to_the_next_who_waits() -> None:
    async def course(loop: Timers, patience: Patience[int]) -> None:
        now = time.monotonic()
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(3)]
        for future, deadline in zip(futures, (now, now + 0.01, now + LATER_S), strict=True):
            patience.watch(future, deadline)
        for future in futures[:2]:
            with pytest.raises(DeadlineExceeded):
                await future
        assert time.monotonic() >= now + 0.01
        assert not futures[2].done()
        assert loop.set == 3

    run(course)


@pytest.mark.parametrize("how", ["answered", "cancelled"])
@pytest.mark.parametrize("own_timer", [False, True])
def test_who_is_done_is_left_alone(how: str, own_timer: bool) -> None:
    async def course(loop: Timers, patience: Patience[int]) -> None:
        other, future = loop.create_future(), loop.create_future()
        now = time.monotonic()
        if own_timer:
            patience.watch(other, now + LATER_S)
        patience.watch(future, now)
        if how == "answered":
            future.set_result(7)
        else:
            future.cancel()
        for _ in range(5):  # the timer's turn
            await asyncio.sleep(0)
        assert future.cancelled() if how == "cancelled" else future.result() == 7

    run(course)


def test_answers_are_not_kept_until_their_deadline() -> None:
    async def course(loop: Timers, patience: Patience[Any]) -> None:
        head = loop.create_future()  # one that is not done holds up the others' way out of the queue
        patience.watch(head, time.monotonic() + LATER_S)
        answers: list[weakref.ref[Any]] = []
        for _ in range(10):
            future = loop.create_future()
            patience.watch(future, time.monotonic() + LATER_S)
            answer = np.zeros(3)
            answers.append(weakref.ref(answer))
            future.set_result(answer)
            del future, answer
        assert [weak() for weak in answers] == [None] * 10

    run(course)

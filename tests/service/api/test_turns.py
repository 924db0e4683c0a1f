"""Turns: one at a time, in order, with time for others between the steps; who cannot wait or has left takes none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.api.timing import Timing
from service.api.turns import Turns, breath
from service.errors import DeadlineExceeded
from tests.service.api.asgi import stays

LATER = 1e9
BODY = b"{}"


async def leaves() -> Message:
    return {"type": "http.disconnect"}


async def repeats() -> Message:
    """What a server gives once more after a body that it has read to its end."""
    return {"type": "http.request", "body": b"", "more_body": False}


def run(course: Coroutine[Any, Any, None]) -> None:
    asyncio.run(course)


def test_turns_are_whole_and_in_the_order_of_asking() -> None:
    turns, steps = Turns(), list[tuple[int, str]]()

    async def one(number: int) -> None:
        async with turns.taken(BODY, stays, LATER, Timing()):
            steps.append((number, "first"))
            await breath()
            steps.append((number, "second"))

    async def course() -> None:
        await asyncio.gather(*map(one, range(20)))

    run(course())
    assert steps == [(number, step) for number in range(20) for step in ("first", "second")]


def test_others_are_answered_between_steps_and_turns() -> None:
    """What needs two rounds of the loop is done before the next step, wherever it comes."""
    turns, heard = Turns(), list[str]()

    async def small() -> None:
        await asyncio.sleep(0)
        heard.append("small")

    async def large() -> None:
        async with turns.taken(BODY, stays, LATER, Timing()):
            heard.append("first")
            asked.append(asyncio.ensure_future(small()))
            await breath()
            heard.append("second")
            asked.append(asyncio.ensure_future(small()))

    asked: list[asyncio.Future[None]] = []

    async def course() -> None:
        await asyncio.gather(large(), large())
        await asyncio.gather(*asked)

    run(course())
    assert heard == ["first", "small", "second", "small"] * 2


@pytest.mark.parametrize(
    ("receive", "deadline", "error"),
    [(leaves, LATER, ClientDisconnect), (stays, time.monotonic(), DeadlineExceeded)],
    ids=["left", "too late"],
)
def test_who_cannot_be_answered_takes_no_turn(
    receive: Callable[[], Coroutine[Any, Any, Message]], deadline: float, error: type[Exception]
) -> None:
    turns, done = Turns(), list[str]()

    async def before() -> None:
        async with turns.taken(BODY, repeats, LATER, Timing()):
            await breath()  # the deadline's timer has its turn
            done.append("before")

    async def hopeless() -> None:
        with pytest.raises(error):
            async with turns.taken(BODY, receive, deadline, Timing()):
                done.append("hopeless")

    async def after() -> None:
        async with turns.taken(BODY, stays, LATER, Timing()):
            done.append("after")

    async def course() -> None:
        await asyncio.gather(before(), hopeless(), after())

    run(course())
    assert done == ["before", "after"]


def test_a_turn_that_fails_is_given_on() -> None:
    turns = Turns()

    async def course() -> None:
        with pytest.raises(ZeroDivisionError):
            async with turns.taken(BODY, stays, LATER, Timing()):
                raise ZeroDivisionError
        timing = Timing()
        async with asyncio.timeout(10), turns.taken(BODY, stays, LATER, timing):
            assert timing.queue >= 0

    run(course())


def test_the_wait_is_told() -> None:
    turns, timing = Turns(), Timing()

    async def course() -> None:
        async def long() -> None:
            async with turns.taken(BODY, stays, LATER, Timing()):
                began = time.monotonic()
                while time.monotonic() < began + 0.02:
                    await breath()

        async def waits() -> None:
            async with turns.taken(BODY, stays, LATER, timing):
                pass

        await asyncio.gather(long(), waits())

    run(course())
    assert timing.queue >= 0.02

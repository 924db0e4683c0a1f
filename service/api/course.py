"""The course of a tensor request that is too large for the event loop: in a thread, while there is time and somebody to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.api.state import State
from service.api.timing import Timing
from service.errors import DeadlineExceeded

_WATCH_FROM_S = 0.1
"""Below this expected wait nobody watches whether the client is still there."""

T = TypeVar("T")


async def in_thread(state: State, work: Callable[[], T], receive: Receive, deadline: float, timing: Timing) -> T:
    """Run something in one of the threads that read and pool tensors.

    Args:
        state: the app's.
        work: blocks.
        receive: of the client that waits.
        deadline: on the clock of `time.monotonic`.
        timing: the wait for a thread is added to its `queue`.

    Raises:
        DeadlineExceeded (504): it was not done by the deadline.
        ClientDisconnect: the client went away.
    """
    asked_at = time.monotonic()

    def begin() -> T:
        begun = time.monotonic()
        timing.queue += begun - asked_at
        if begun > deadline:  # it waited for a thread too long: do not begin
            raise DeadlineExceeded("the time limit passed before the work was begun")
        return work()

    course: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(state.poolers, begin)
    waited: set[asyncio.Future[T] | asyncio.Future[None]] = {course}
    gone: asyncio.Future[None] | None = None
    if state.pool_admission.drain_s() >= _WATCH_FROM_S:
        gone = asyncio.ensure_future(_disconnect(receive))
        waited.add(gone)
    try:
        await asyncio.wait(waited, timeout=deadline - asked_at, return_when=asyncio.FIRST_COMPLETED)
        if course.done():
            return course.result()
        if gone is not None and gone.done():
            raise ClientDisconnect
        raise DeadlineExceeded("the time limit passed before the tensor was pooled")
    finally:
        course.cancel()
        if gone is not None:
            gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

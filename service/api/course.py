"""The course of a tensor request that is too large for the event loop: in a thread, while there is time and somebody to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.api.state import State
from service.errors import DeadlineExceeded

_WATCH_FROM_S = 0.1
"""Below this expected wait nobody watches whether the client is still there."""

T = TypeVar("T")


class Timing:
    """Seconds of the stages, for Server-Timing."""

    __slots__ = ("decode", "encode", "infer", "queue")

    def __init__(self) -> None:
        self.decode = self.queue = self.infer = self.encode = 0.0

    def header(self) -> tuple[bytes, bytes]:
        """Give the header."""
        stages = (self.decode * 1e3, self.queue * 1e3, self.infer * 1e3, self.encode * 1e3)
        return b"server-timing", b"decode;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f" % stages


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

"""The end of a client's patience: an answer that comes later is none."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded

T = TypeVar("T")


@asynccontextmanager
async def answered_by(deadline: float, what: str = "the answer was there") -> AsyncIterator[None]:
    """Cancel what is inside when the time has come.

    Args:
        deadline: on the clock of `time.monotonic`.
        what: should have come to pass; for the message.

    Raises:
        DeadlineExceeded: 504; it was not done by then.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            yield
    except TimeoutError:
        raise DeadlineExceeded(f"the time limit passed before {what}") from None


class Patience(Generic[T]):
    """Answers that many wait for, each until its deadline. One timer for all: a timer each takes longer than queueing an image.

    For one event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Nearly all deadlines are as far away, so that they come in order. Weak, because answers are not kept until then.
        self._due: deque[tuple[float, weakref.ref[asyncio.Future[T]]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[T], deadline: float) -> None:
        """Let a future raise DeadlineExceeded (504) when the time has come and it is not done.

        Args:
            future: of this loop.
            deadline: on the clock of `time.monotonic`.
        """
        due = self._due
        if due and deadline < due[-1][0]:
            timer = self.loop.call_later(deadline - time.monotonic(), _expire, future)
            future.add_done_callback(lambda _: timer.cancel())
            return
        while due and _is_done(due[0][1]):
            due.popleft()
        due.append((deadline, weakref.ref(future)))
        if self._timer is None:
            self._timer = self.loop.call_later(deadline - time.monotonic(), self._look)

    def _look(self) -> None:
        """Expire who is due, and sleep until the next one is."""
        now = time.monotonic()
        self._timer = None
        while self._due:
            deadline, weak = self._due[0]
            if deadline > now and not _is_done(weak):
                self._timer = self.loop.call_later(deadline - now, self._look)
                break
            self._due.popleft()
            future = weak()
            if future is not None:
                _expire(future)


def _is_done(weak: weakref.ref[asyncio.Future[T]]) -> bool:
    future = weak()
    return future is None or future.done()


def _expire(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded("the time limit passed before the answer was there"))

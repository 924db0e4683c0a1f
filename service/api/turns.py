"""Turns on the event loop, for work that holds the interpreter's lock: in a thread it would only be in everybody's way.

Parsing 2 MB of JSON (3 ms) and writing 0.5 MB (1 ms) hold the lock from beginning to end. Within a turn and between two the loop
looks at what has come, so that a small request waits for one step, however many large ones there are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.api.course import Timing
from service.api.intake import Receiving
from service.runtime.deadline import answered_by

_ROUNDS = 2
"""Of the loop, in which a small request goes from its bytes to its answer; if nothing has come they take 10 µs each."""


class Turns:
    """One at a time, in the order of asking. For one event loop."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def taken(self, receive: Receive, deadline: float, timing: Timing) -> AsyncIterator[None]:
        """Wait for a turn, and hold it within.

        Args:
            receive: of the client that waits.
            deadline: on the clock of `time.monotonic`.
            timing: the wait is added to its `queue`.

        Raises:
            DeadlineExceeded (504): the deadline passed before its turn.
            ClientDisconnect: the client went away before its turn.
        """
        asked_at = time.monotonic()
        async with answered_by(deadline, "its turn came"):
            await self._one.acquire()
        try:
            timing.queue += time.monotonic() - asked_at
            if _is_gone(receive):
                raise ClientDisconnect
            yield
            await breath()
        finally:
            self._one.release()


async def breath() -> None:
    """Let the loop answer what has come, between two steps of a turn."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


def _is_gone(receive: Receive) -> bool:
    """Whether the client has left, as far as is known; its whole body has been received."""
    message = Receiving(receive).now()
    return message is not None and message["type"] == "http.disconnect"

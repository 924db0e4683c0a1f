"""Turns on the event loop, for work that holds the interpreter's lock: in a thread it would only be in everybody's way.

Parsing 2 MB of JSON (3 ms) and writing 0.5 MB (1 ms) hold the lock from beginning to end. Within a turn and between two the loop
looks at what has come, so that a small request waits for one step, however many large ones there are. Who would have to wait for a
turn may have the parsing done by another process (service/reader) meanwhile, and who has a turn, half of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.api.intake import Body, Receiving
from service.api.timing import Timing
from service.codecs.tensors.members import Members
from service.reader.channel import Task
from service.reader.halves import MIN_BODY, read_halves
from service.reader.reader import Reader, ReaderEnded
from service.runtime.deadline import answered_by

_ROUNDS = 2
"""Of the loop, in which a small request goes from its bytes to its answer; if nothing has come they take 10 µs each."""

_Line = deque[asyncio.Future[int | None]]
"""Who waits for a slot of the reader, or for None: the loop itself, or the news that there is no reader."""


class Turns:
    """One at a time, in the order of asking. For one event loop."""

    def __init__(self, reader: Reader | None = None) -> None:
        """Begin with nobody.

        Args:
            reader: reads for those who would wait; None: nobody does.
        """
        self._reader = reader
        self._held = False
        self._apart: _Line = deque()
        self._asking: _Line = deque()
        self._returning: _Line = deque()
        if reader is not None:
            reader.on_free = self._next

    @asynccontextmanager
    async def taken(
        self, body: Body, receive: Receive, deadline: float, timing: Timing
    ) -> AsyncIterator[Members | None]:
        """Wait for a turn, and hold it within.

        Args:
            body: the request's.
            receive: of the client that waits.
            deadline: on the clock of `time.monotonic`.
            timing: the wait is added to its `queue`, reading to its `decode`.

        Yields:
            What was read of the body with the other process; None where nothing was.

        Raises:
            ServiceError: what is wrong with the request. DeadlineExceeded (504): the deadline passed before its turn.
            NeedsWalk: its numbers do, for which turns are not.
            ClientDisconnect: the client went away before its turn.
        """
        members: Members | None = None
        async with answered_by(deadline, "its turn came"):
            with timing.measured("queue"):
                slot = await self._place()
            if slot is not None:
                with timing.measured("decode"):
                    read = await self._beside(slot, Task.MEMBERS, body)
                assert read is None or isinstance(read, Members)  # by its task
                members = read
                with timing.measured("queue"):
                    await self._wait(self._returning)
        try:
            if _is_gone(receive):
                raise ClientDisconnect
            if members is None:
                with timing.measured("decode"):
                    async with answered_by(deadline, "its body was read"):
                        members = await self._together(body)
            yield members
            await breath()
        finally:
            self._held = False
            self._next()

    async def apart(self, task: Task, body: Body, deadline: float, timing: Timing) -> object | None:
        """Have a body read for which turns are not; None where there is no other process for it.

        Args:
            task: what it is.
            body: of at most MAX_BODY bytes.
            deadline: on the clock of `time.monotonic`.
            timing: the wait is added to its `queue`, reading to its `decode`.

        Raises:
            ServiceError: what is wrong with the request. DeadlineExceeded (504): it was not read by the deadline.
        """
        if self._reader is None:
            return None
        self._reader.want()
        async with answered_by(deadline, "its body was read"):
            with timing.measured("queue"):
                slot = await self._wait(self._apart)
            if slot is None:
                return None
            with timing.measured("decode"):
                return await self._beside(slot, task, body)

    async def _place(self) -> int | None:
        """Wait for the loop (None) or for a slot of the reader, whichever comes first."""
        if self._held and self._reader is not None:
            self._reader.want()
        return await self._wait(self._asking)

    async def _beside(self, slot: int, task: Task, body: Body) -> object | None:
        """Have a body read by the other process; None if it has ended."""
        assert self._reader is not None
        try:
            return await self._reader.begin(slot, task, body)
        except ReaderEnded:
            return None

    async def _together(self, body: Body) -> Members | None:
        """Read a body with the other process if that has nothing to do; None where it has, or where the whole must be read."""
        if self._reader is None or len(body) < MIN_BODY:
            return None
        self._reader.want()
        slot = self._reader.take()
        if slot is None:
            return None
        members = await read_halves(body, self._reader, slot)
        await breath()
        return members

    async def _wait(self, line: _Line) -> int | None:
        waiter: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        line.append(waiter)
        self._next()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it came in the same moment: the next one's
                self._give_back(waiter.result(), line)
            raise

    def _give_back(self, place: int | None, line: _Line) -> None:
        if place is not None:
            assert self._reader is not None
            self._reader.give(place)
        elif line is not self._apart:
            self._held = False
        self._next()

    def _next(self) -> None:
        """Give what is free to who waits.

        The loop goes first to those whose request is read, who need it for a shorter time; slots to who can have nothing else.
        """
        if not self._held and (waiter := _first(self._returning) or _first(self._asking)):
            self._held = True
            waiter.set_result(None)
        if self._reader is None:
            return
        while not self._reader.ready and (waiter := _first(self._apart)):
            waiter.set_result(None)
        while (self._apart or self._asking) and (slot := self._reader.take()) is not None:
            waiter = _first(self._apart) or _first(self._asking)
            if waiter is None:
                self._reader.give(slot)
            else:
                waiter.set_result(slot)


def _first(line: _Line) -> asyncio.Future[int | None] | None:
    """Take the first who still waits out of a line."""
    while line:
        waiter = line.popleft()
        if not waiter.done():
            return waiter
    return None


async def breath() -> None:
    """Let the loop answer what has come, between two steps of a turn."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


def _is_gone(receive: Receive) -> bool:
    """Whether the client has left, as far as is known; its whole body has been received."""
    message = Receiving(receive).now()
    return message is not None and message["type"] == "http.disconnect"

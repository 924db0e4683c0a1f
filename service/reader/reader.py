"""The serving process's side: the reader as a process, and the requests that it has."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from service.codecs.oip.declared import Limits
from service.errors import InternalError
from service.reader import slots
from service.reader.channel import MESSAGE, READY, Task

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]

_REST_S = 10.0
"""After a reader has ended by itself: before another one is started."""


_STUCK_S = 10.0
"""For one request, and one before it. Walking over 16 MiB of numbers, NaN among them, takes 1.2."""


class ReaderEnded(Exception):
    """The process ended before it had read the request; whoever asked reads it without help."""


class _Waiting(NamedTuple):
    future: asyncio.Future[object]
    timer: asyncio.TimerHandle


class Reader:
    """A process that reads JSON requests. It is started when it is first wanted, and ends with this one.

    For one event loop.

    Attributes:
        limits: of each tensor.
        names: of a tensor request's members that are tensors, beside `tensor`.
        possible: whether the system has what is needed: Linux does.
        ready: whether it takes requests: it has been started, and has not ended.
        on_free: called when a slot is free that was not, and when the process has ended.
    """

    possible = hasattr(os, "memfd_create")

    def __init__(self, *, limits: Limits, names: Collection[str]) -> None:
        """Prepare; nothing is started. The arguments: as the attributes."""
        self.limits = limits
        self.names = names
        self.ready = False
        self.on_free: Callable[[], None] = lambda: None
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket
        self._slots: list[slots.Slot] = []
        self._free: list[int] = []
        self._waiting: dict[int, _Waiting] = {}
        self._rests_until = 0.0

    @property
    def pid(self) -> int | None:
        """The process's id; None where none runs."""
        return self._process.pid if self._process else None

    def want(self) -> None:
        """Start the process, if it does not run; it is of use in 0.1 s."""
        if self._process is not None or time.monotonic() < self._rests_until:
            return
        try:
            self._process = self._start()
        except OSError as error:
            self._rests_until = time.monotonic() + _REST_S
            log.warning("JSON is read by this process alone: no second one could be started: %s", error)
            return
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._hear)
        log.info("JSON is read by process %d, too", self._process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        """Open what both processes share, and start the other one, which inherits it."""
        arguments = (*map(str, self.limits), ",".join(sorted(self.names)))
        self._channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with far, slots.created() as memory:
                self._slots = slots.attach(memory)
                return subprocess.Popen(
                    [sys.executable, "-m", "service.reader", str(far.fileno()), str(memory), *arguments],
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=(far.fileno(), memory),
                )
        except OSError:
            self._channel.close()
            self._slots = []
            raise

    def take(self) -> int | None:
        """Take a slot; None where none is free. `begin` or `give` gives it back."""
        return self._free.pop() if self._free else None

    def give(self, number: int) -> None:
        """Give a slot back that nothing was begun by."""
        if self.ready:
            self._free.append(number)

    def begin(self, number: int, task: Task, *parts: bytes | memoryview) -> asyncio.Future[object]:
        """Have a request read by a slot that was taken.

        Args:
            number: the slot's; it is given back when the process is done with it, whoever waits.
            task: what the body is; what comes of it is said there.
            parts: of the body, which has at most slots.MAX_BODY bytes.

        Returns:
            What comes of it. Its errors: ServiceError, what is wrong with the request; NeedsWalk; ReaderEnded, nobody has
            read it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        if not self.ready:
            future.set_exception(ReaderEnded())
            return future
        length = self._slots[number].put(*parts)
        self._waiting[number] = _Waiting(future, loop.call_later(_STUCK_S, self._hang))
        try:
            self._channel.send(MESSAGE.pack(number, task, length))
        except OSError:
            self._end()
        return future

    def close(self) -> None:
        """End the process. What it has is lost."""
        if self._process is not None:
            self._stop()

    def _hear(self) -> None:
        """Take what the process says."""
        try:
            message = self._channel.recv(MESSAGE.size)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._end()
            return
        number, _, _ = MESSAGE.unpack(message)
        if number == READY:
            self.ready = True
            self._free = list(range(slots.COUNT))
        else:
            future, timer = self._waiting.pop(number)
            timer.cancel()
            if not future.done():
                _settle(future, self._slots[number])
            self._slots[number].trim()
            self._free.append(number)
        self.on_free()

    def _end(self) -> None:
        """Go on without the process, which has ended by itself."""
        if self._process is not None:
            log.warning(
                "process %d, which reads JSON, has ended by itself with status %d", self._process.pid, self._stop()
            )

    def _hang(self) -> None:
        """Go on without the process, which does nothing."""
        if self._process is not None:
            log.warning(
                "process %d, which reads JSON, has not answered for %g s and was ended", self._process.pid, _STUCK_S
            )
            self._stop()

    def _stop(self) -> int:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        self._channel.close()
        self._process.kill()
        status = self._process.wait()
        self._process, self.ready = None, False
        self._rests_until = time.monotonic() + _REST_S
        self._free, self._slots = [], []
        for future, timer in self._waiting.values():
            timer.cancel()
            if not future.done():
                future.set_exception(ReaderEnded())
        self._waiting.clear()
        self.on_free()
        return status


def _settle(future: asyncio.Future[object], slot: slots.Slot) -> None:
    try:
        result = slot.result()
    except MemoryError as error:  # a copy is made
        result = error
    if isinstance(result, Exception):
        future.set_exception(result)
    elif result is None:
        future.set_exception(InternalError())
    else:
        future.set_result(result)

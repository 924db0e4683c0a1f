"""Answers that nobody reads: they are in memory until they are."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from contextlib import suppress

from service.hourglass import Hourglass


class Unread:
    """One connection's. It looks now and then whether its client has taken something, and ends the connection if not.

    A client that reads slowly is not ended, so that what the kernel still holds counts, too: it tells of the space that it has
    only when there is much of it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        """Begin at rest.

        Args:
            transport: the connection's.
            loop: its.
            limit_s: longest a client may take nothing.
        """
        self._transport = transport
        self._limit_s = limit_s
        self._clock = Hourglass(loop, self._look)
        self._size = 0
        self.rest, self.drop = self._clock.rest, self._clock.drop

    def watch(self) -> None:
        """Begin to look."""
        self._size = self._unsent()
        self._clock.turn(self._limit_s)

    def _look(self) -> None:
        size, before = self._unsent(), self._size
        if size == 0:
            return
        if size >= before:
            self._transport.abort()
            return
        self._size = size
        self._clock.turn(self._limit_s)

    def _unsent(self) -> int:
        """Say how many bytes the client has not taken."""
        size = self._transport.get_write_buffer_size()
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError, ValueError):  # it is closed, or not of a kind that can say so
                size += struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return size

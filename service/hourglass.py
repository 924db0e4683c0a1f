"""An end to what lasts too long, for things that begin and end with every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Hourglass:
    """One connection's. To turn it costs a look at the clock: its timer is set where none is, and asks then whether it is time."""

    __slots__ = ("_loop", "_over", "_rings_s", "_timer", "_until_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[], None]) -> None:
        """Begin at rest.

        Args:
            loop: the connection's.
            over: called when the time is over.
        """
        self._loop = loop
        self._over: Callable[[], None] | None = over
        self._until_s: float | None = None
        self._rings_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def turn(self, limit_s: float) -> None:
        """Begin from now on, whatever was before.

        Args:
            limit_s: seconds until the time is over.
        """
        self._until_s = self._loop.time() + limit_s
        if self._timer is None or self._rings_s > self._until_s:
            self._set(limit_s)

    def rest(self) -> None:
        """Let the time never be over."""
        self._until_s = None

    def drop(self) -> None:
        """End: nobody is called any more, or kept."""
        self._until_s = self._over = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, left_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = self._loop.time() + left_s
        self._timer = self._loop.call_later(left_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._until_s is None or self._over is None:
            return
        left_s = self._until_s - self._loop.time()
        if left_s > 0:
            self._set(left_s)
        else:
            self._until_s = None
            self._over()

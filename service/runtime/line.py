"""The line of those who were refused: when each was told to come back, so that there is a place when it does.

HTTP gives no sign by which a returning client could be known, so times are kept, not clients: an arrival just after a promised
time is taken for the one that it was promised to. That is nearly always right: those who honour `Retry-After` return within
milliseconds of it. What a place is, and how many there are, is admission's business (admission.py).
"""

from __future__ import annotations

import heapq
import math
from collections import deque

_LONGEST_S = 60
"""Nobody is sent away for longer; by then the line says nothing any more."""

_GRACE_S = 0.5
"""For how long a promise is kept: networks and timers are late by some tenths of a second. After that it is a hole."""

_SPACING = 1.1
"""Returns are promised this much slower than work gets done: what the mean does not know would else pile up as second refusals.

The tenth that is left goes to whoever comes when the queue is short. In a simulated minute of 256 clients that send again as soon
as they are answered, 92 % of the returns found a place with 1.1, 86 % with 1.0 and 27 % with 0.9; the service was busy with each.
"""


class Line:
    """Promised returns, in order of their time. Lives on the event loop, so it needs no lock.

    All times are seconds of one monotonic clock, given by the caller.
    """

    def __init__(self, longest: int) -> None:
        """Begin empty; at most `longest` promises are remembered, so that a flood of refusals does not take memory."""
        self._longest = longest
        self._coming: list[float] = []  # a heap: rounded to whole seconds, promises are not made in order
        self._due: deque[float] = deque()
        self._end = 0.0  # when the last in the line is served

    def __len__(self) -> int:
        """Those who are expected back and not due yet."""
        return len(self._coming)

    def join(self, now: float, until_room_s: float, service_s: float) -> int:
        """Send one away. Returns whole seconds, at least 1, after which to come back.

        Args:
            now: the time.
            until_room_s: seconds until the queue has room for the first of the line.
            service_s: seconds that one request takes at the measured rate.
        """
        self._end = min(max(self._end, now + until_room_s) + _SPACING * service_s, now + _LONGEST_S)
        seconds = max(1, math.ceil(self._end - now))
        if len(self._coming) < self._longest:
            heapq.heappush(self._coming, now + seconds)
        return seconds

    def due(self, now: float) -> bool:
        """Say whether somebody was told to be here by now and has not been yet."""
        while self._coming and self._coming[0] <= now:
            self._due.append(heapq.heappop(self._coming))
        while self._due and self._due[0] < now - _GRACE_S:
            self._due.popleft()
        return bool(self._due)

    def claim(self) -> None:
        """Take one promise as kept; after `due` has said that there is one."""
        self._due.popleft()

    def clear(self) -> None:
        """Forget everybody: there is room for all of them."""
        self._coming.clear()
        self._due.clear()
        self._end = 0.0

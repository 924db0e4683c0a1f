"""Admission: a queue bounded by time. What cannot be answered within its limit is refused before its body is read.

Work is counted in pixels, plus a fixed worth for each image, and the rate at which it gets done is measured while there is any.
Nothing here waits or knows what the work is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from service.errors import Overloaded
from service.runtime.line import Line

WORK_PER_IMAGE = 4096
"""An image costs as much as this many pixels on top of its own: HTTP, decoding and a run of a 64×64 picture's order."""

_MEMORY_S = 5.0
"""Seconds of busy time after which a measurement weighs 1/e: long against one run, short against a change of load."""

_WARM_UP_S = 0.1
"""What warm-up measured weighs as little as this: it was one picture, alone, of a size that may never come."""

_SHARE = 0.7
"""Part of the time limit that may be promised away: the rest is for what the mean does not know (batches, larger images)."""

_KEPT = 0.5
"""Part of the promised time above which places are kept for those who were refused before and are expected back.

Below it a newcomer is let in at once, so that the service never idles because somebody did not return. Above it newcomers would
take every place in the moment it gets free: in a simulated minute of 256 clients that send again as soon as they are answered, 57
of them were ever answered and 1 % of the returns found a place without this, 256 and 92 % with it.
"""


class Ticket:
    """One request's place: from its headers to its answer. Made by `Admission.admit`; `leave` must be called once."""

    __slots__ = ("_admission", "begun", "work")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.work: float | None = None  # until it is weighed
        self.begun = False

    def begin(self) -> None:
        """Say that the body is here: from now on the time counts as the service's, no longer as the sender's."""
        self._admission._begin(self)

    def weigh(self, pixels: int, images: int) -> None:
        """Say how much work it is, once that is known; until then it counts as the mean."""
        self._admission._weigh(self, pixels + images * WORK_PER_IMAGE)

    def leave(self, *, answered: bool) -> None:
        """Give the place back; `answered` says that the work was done, so that it counts for the rate."""
        self._admission._leave(self, answered=answered)


class Admission:
    """The queue of one model in numbers; lives on the event loop, so it needs no lock.

    Attributes:
        rate: work per second, measured over busy time.
        waiting: admitted requests that are not answered yet.
        refused: requests refused since the start.
    """

    def __init__(self, rate: float, *, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a rate.

        Args:
            rate: work per second, as warm-up measured it; > 0.
            max_waiting: requests in the queue, whatever their time.
            clock: seconds.
        """
        self.waiting = 0
        self.refused = 0
        self._clock = clock
        self._max_waiting = max_waiting
        self._busy_s, self._done = _WARM_UP_S, rate * _WARM_UP_S
        self._weighed = 0.0  # admitted work that is not answered yet, of those whose work is known
        self._unweighed = 0  # and the number of those whose work is not: each counts as the mean
        self._mean_work = float(WORK_PER_IMAGE)
        self._seen = 0  # what the mean is made of
        self._serving = 0  # requests whose body is here: while there are any, time is busy
        self._mark = 0.0  # up to when busy time is accounted for
        self._line = Line(max_waiting)

    @property
    def rate(self) -> float:
        """Work per second of busy time."""
        return self._done / self._busy_s

    @property
    def backlog(self) -> float:
        """Admitted work that is not answered yet."""
        return self._weighed + self._unweighed * self._mean_work

    def drain_s(self) -> float:
        """Seconds until everybody who is admitted now is answered, at the measured rate."""
        return self.backlog / self.rate

    def wait_s(self) -> float:
        """Seconds until a request that came now would be answered, at the measured rate."""
        return (self.backlog + self._mean_work) / self.rate

    def admit(self, timeout_s: float) -> Ticket:
        """Take a request into the queue, on its headers alone, or refuse it.

        A request that finds the queue empty is always taken: the estimate may be wrong, and only work corrects it.

        Raises:
            Overloaded: 429; its `retry_after_s` is when a place for this caller is expected, behind those refused before it.
        """
        now, wait_s, promised_s = self._clock(), self.wait_s(), _SHARE * timeout_s
        if not self.waiting:
            self._line.clear()
        due = self._line.due(now)
        full = self.waiting >= self._max_waiting or wait_s > promised_s
        kept = len(self._line) > 0 and not due and wait_s > _KEPT * promised_s
        if self.waiting and (full or kept):
            self.refused += 1
            before = f"{self.waiting} requests are before it, {len(self._line)} were refused before it"
            raise Overloaded(
                f"expected an answer within {timeout_s:g} s, it would take about {wait_s:.2g} s: {before}"
                if self.waiting < self._max_waiting
                else f"expected a place among {self._max_waiting} that wait, there is none: {before}",
                self._line.join(now, wait_s - promised_s, self._mean_work / self.rate),
            )
        if due:
            self._line.claim()
        self.waiting += 1
        self._unweighed += 1
        return Ticket(self)

    def _account(self) -> None:
        now = self._clock()
        if self._serving:
            busy_s = now - self._mark
            kept = math.exp(-busy_s / _MEMORY_S)
            self._busy_s = self._busy_s * kept + busy_s
            self._done *= kept
        self._mark = now

    def _begin(self, ticket: Ticket) -> None:
        self._account()
        self._serving += 1
        ticket.begun = True

    def _weigh(self, ticket: Ticket, work: float) -> None:
        # The first counts fully, so that a crowd that comes as the first traffic is judged by what it brings.
        self._seen += 1
        self._mean_work += max(0.05, 1 / self._seen) * (work - self._mean_work)
        self._forget(ticket)
        self._weighed += work
        ticket.work = work

    def _forget(self, ticket: Ticket) -> None:
        if ticket.work is None:
            self._unweighed -= 1
        else:
            self._weighed -= ticket.work

    def _leave(self, ticket: Ticket, *, answered: bool) -> None:
        self._account()
        self.waiting -= 1
        self._forget(ticket)
        if not self.waiting:
            self._weighed = 0.0  # what rounding has left
        if ticket.begun:
            self._serving -= 1
            if answered and ticket.work is not None:
                self._done += ticket.work

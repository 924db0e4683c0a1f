"""Admission: a queue bounded by time. What cannot be answered within its limit is refused before its body is read.

Work is counted in pixels, plus a fixed worth for each image, and the rate at which it gets done is measured while there is any.
Nothing here waits or knows what the work is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from service.errors import Overloaded

WORK_PER_IMAGE = 4096
"""An image costs as much as this many pixels on top of its own: HTTP, decoding and a run of a 64×64 picture's order."""

_MEMORY_S = 5.0
"""Seconds of busy time after which a measurement weighs 1/e: long against one run, short against a change of load."""

_WARM_UP_S = 0.1
"""What warm-up measured weighs as little as this: it was one picture, alone, of a size that may never come."""

_SHARE = 0.7
"""Part of the time limit that may be promised away: the rest is for what the mean does not know (batches, larger images)."""

_MAX_RETRY_AFTER_S = 60
"""Nobody is sent away for longer; by then the line of those who were refused says nothing any more."""


class Ticket:
    """One request's place: from its headers to its answer. Made by `Admission.admit`; `leave` must be called once."""

    __slots__ = ("_admission", "begun", "work")

    def __init__(self, admission: Admission, work: float) -> None:
        self._admission = admission
        self.work = work
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
        backlog: admitted work that is not answered yet.
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
        self.backlog = 0.0
        self.waiting = 0
        self.refused = 0
        self._clock = clock
        self._max_waiting = max_waiting
        self._busy_s, self._done = _WARM_UP_S, rate * _WARM_UP_S
        self._mean_work = float(WORK_PER_IMAGE)
        self._serving = 0  # requests whose body is here: while there are any, time is busy
        self._mark = 0.0  # up to when busy time is accounted for
        self._line_end = 0.0  # when the last of those who were refused is expected back

    @property
    def rate(self) -> float:
        """Work per second of busy time."""
        return self._done / self._busy_s

    def wait_s(self) -> float:
        """Seconds until a request that came now would be answered, at the measured rate."""
        return (self.backlog + self._mean_work) / self.rate

    def admit(self, timeout_s: float) -> Ticket:
        """Take a request into the queue, on its headers alone, or refuse it.

        A request that finds the queue empty is always taken: the estimate may be wrong, and only work corrects it.

        Raises:
            Overloaded: 429; its `retry_after_s` is when a place for this caller is expected, behind those refused before it.
        """
        wait_s, promised_s = self.wait_s(), _SHARE * timeout_s
        if self.waiting and (wait_s > promised_s or self.waiting >= self._max_waiting):
            self.refused += 1
            raise Overloaded(
                f"expected an answer within {timeout_s:g} s, {self.waiting} requests are before it and need about {wait_s:.2g} s",
                self._place_in_line(wait_s - promised_s),
            )
        if wait_s < promised_s / 2:
            self._line_end = 0.0  # there is room again: whoever was refused before has come back, or will not
        ticket = Ticket(self, self._mean_work)
        self.backlog += ticket.work
        self.waiting += 1
        return ticket

    def _place_in_line(self, until_room_s: float) -> int:
        """When to come back: those who were refused return one by one, a little faster than they can be served.

        Without the line all would return at once, and all but a few be refused again. A little faster, because a client who does
        not return leaves a hole, and an idle device is worse than a second refusal.
        """
        now = self._clock()
        place = max(self._line_end, now + until_room_s) + 0.8 * self._mean_work / self.rate
        self._line_end = min(place, now + _MAX_RETRY_AFTER_S)
        return max(1, math.ceil(self._line_end - now))

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
        self._mean_work += 0.05 * (work - self._mean_work)
        self.backlog += work - ticket.work
        ticket.work = work

    def _leave(self, ticket: Ticket, *, answered: bool) -> None:
        self._account()
        self.waiting -= 1
        self.backlog = max(0.0, self.backlog - ticket.work) if self.waiting else 0.0
        if ticket.begun:
            self._serving -= 1
            if answered:
                self._done += ticket.work

"""Admission: a queue bounded by time. What cannot be answered within its limit is refused before its body is read.

Work is counted in pixels, plus a fixed worth for each image, and the rate at which it gets done is measured while there is any.
Nothing here waits or knows what the work is.
"""

from __future__ import annotations

import math
import time
from collections import deque
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

_PIXELS_PER_BYTE = 4
"""Of a JPEG of usual quality. Only the first traffic is judged by the length of its bodies; after it, by what was weighed."""

_HOLD_S = 0.25
"""For how long a place is held for a body that has not come. Else a few dozen slow senders would keep everybody out."""


class Ticket:
    """One request's place: from its headers to its answer. Made by `Admission.admit`; `leave` must be called once."""

    __slots__ = ("_admission", "begun", "came", "placed", "timeout_s", "work")

    def __init__(self, admission: Admission, timeout_s: float, came: float) -> None:
        self._admission = admission
        self.timeout_s = timeout_s
        self.came = came
        self.work: float | None = None  # until it is weighed
        self.placed = False  # whether it counts for those who come
        self.begun = False  # whether its body is here

    def begin(self) -> None:
        """Say that the body is here: from now on the time counts as the service's, no longer as the sender's.

        Raises:
            Overloaded: 429; the body came so slowly that its place was given away, and there is none now.
        """
        self._admission._begin(self)

    def weigh(self, pixels: int, images: int) -> None:
        """Say how much work it is, once that is known; until then it counts as the mean."""
        self._admission._weigh(self, pixels + images * WORK_PER_IMAGE)

    def move(self, to: Admission, *, answered: bool) -> None:
        """Go over to another queue, once the body is here; `answered` says that a part of the work was done in this one.

        Raises:
            Overloaded: 429; there is no place in the other. This one is kept.
        """
        to.refuse(self.timeout_s)
        self._admission._leave(self, answered=answered)
        self._admission = to
        self.work, self.begun = None, False
        to.waiting += 1
        to._begin(self)

    def leave(self, *, answered: bool) -> None:
        """Give the place back; `answered` says that the work was done, so that it counts for the rate."""
        self._admission._leave(self, answered=answered)


class Admission:
    """The queue of one model in numbers; lives on the event loop, so it needs no lock.

    Attributes:
        rate: work per second, measured over busy time.
        waiting: admitted requests that are not answered yet, those whose bodies have not come included.
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
        self._open_s = 0.0  # busy time since somebody was answered
        self._placed = 0  # admitted requests that are counted for those who come
        self._weighed = 0.0  # the work of those of them whose work is known
        self._unweighed = 0  # and the number of those whose work is not: each counts as the mean
        self._held: deque[Ticket] = deque()  # the youngest in the order of coming: for whose bodies a place may be held
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

    def admit(self, timeout_s: float, body_bytes: int | None = None) -> Ticket:
        """Take a request into the queue, on its headers alone, or refuse it.

        A request that finds the queue empty is always taken: the estimate may be wrong, and only work corrects it.

        Args:
            timeout_s: seconds that the caller will wait.
            body_bytes: as the headers say; None where they do not.

        Raises:
            Overloaded: 429; its `retry_after_s` is when a place for this caller is expected, behind those refused before it.
        """
        if not self._seen and body_bytes is not None:
            self._mean_work = float(max(WORK_PER_IMAGE, body_bytes * _PIXELS_PER_BYTE))
        self.refuse(timeout_s)
        now = self._clock()
        if self._line.due(now):
            self._line.claim()
        self.waiting += 1
        ticket = Ticket(self, timeout_s, now)
        self._place(ticket)
        self._held.append(ticket)
        return ticket

    def _let_go(self, now: float) -> None:
        """Stop counting those whose bodies do not come."""
        while self._held and (self._held[0].begun or self._held[0].came < now - _HOLD_S):
            ticket = self._held.popleft()
            if not ticket.begun:
                self._forget(ticket)

    def refuse(self, timeout_s: float) -> None:
        """Refuse one more, unless it can be answered in time; takes no place.

        Raises:
            Overloaded: 429; as `admit` would.
        """
        now = self._clock()
        self._let_go(now)
        if self.waiting >= self._max_waiting:
            raise self._refusal(f"expected a place among {self._max_waiting} that wait, there is none", timeout_s)
        self._refuse_late(timeout_s, now)

    def _refuse_late(self, timeout_s: float, now: float) -> None:
        if not self._placed:
            self._line.clear()
            return
        wait_s, promised_s = self.wait_s(), _SHARE * timeout_s
        kept = len(self._line) > 0 and wait_s > _KEPT * promised_s and not self._line.due(now)
        if wait_s > promised_s or kept:
            raise self._refusal(
                f"expected an answer within {timeout_s:g} s, it would take about {wait_s:.2g} s", timeout_s
            )

    def _refusal(self, reason: str, timeout_s: float) -> Overloaded:
        self.refused += 1
        before = f"{self.waiting} requests are before it, {len(self._line)} were refused before it"
        until_room_s = self.wait_s() - _SHARE * timeout_s
        return Overloaded(
            f"{reason}: {before}", self._line.join(self._clock(), until_room_s, self._mean_work / self.rate)
        )

    def _account(self) -> None:
        now = self._clock()
        if self._serving:
            self._open_s += now - self._mark
        self._mark = now

    def _credit(self, work: float) -> None:
        """Add work that is done, and the busy time that it took."""
        kept = math.exp(-self._open_s / _MEMORY_S)
        self._busy_s = self._busy_s * kept + self._open_s
        self._done = self._done * kept + work
        self._open_s = 0.0

    def _begin(self, ticket: Ticket) -> None:
        self._account()
        if not ticket.placed:
            self._refuse_late(ticket.timeout_s, self._clock())
            self._place(ticket)
        self._serving += 1
        ticket.begun = True

    def _weigh(self, ticket: Ticket, work: float) -> None:
        # The first counts fully, so that a crowd that comes as the first traffic is judged by what it brings.
        self._seen += 1
        self._mean_work += max(0.05, 1 / self._seen) * (work - self._mean_work)
        self._forget(ticket)
        ticket.work = work
        self._place(ticket)

    def _place(self, ticket: Ticket) -> None:
        """Count a request's work for those who come."""
        ticket.placed = True
        self._placed += 1
        if ticket.work is None:
            self._unweighed += 1
        else:
            self._weighed += ticket.work

    def _forget(self, ticket: Ticket) -> None:
        """Count it no longer; does nothing where it is not counted."""
        if not ticket.placed:
            return
        ticket.placed = False
        self._placed -= 1
        if ticket.work is None:
            self._unweighed -= 1
        else:
            self._weighed = self._weighed - ticket.work if self._placed else 0.0  # 0: not what rounding has left

    def _leave(self, ticket: Ticket, *, answered: bool) -> None:
        self._account()
        self.waiting -= 1
        self._forget(ticket)
        if ticket.begun:
            self._serving -= 1
            if answered and ticket.work is not None:
                self._credit(ticket.work)
            elif not self._serving:
                # How much of its work was done nobody knows. As none, one that ran into its time limit would have all others
                # refused for long after it.
                self._open_s = 0.0

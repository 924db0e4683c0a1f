"""Runs of a tiny model on the event loop itself: what arrived in one tick is its batch, and no thread is woken for it.

A thread hand-over costs more than such a run: two switches, and a fight for the interpreter's lock. The event loop must not be
held long, so a tick runs for BUDGET_S by what runs were measured to cost, and what is left waits for the next one, behind whatever
else the loop has to do. Which models and images are small enough is measured, too (handover.py). No admission here, no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from service.errors import DeadlineExceeded, InternalError, Overloaded
from service.runtime.batcher import Answer
from service.runtime.canvas import Tally
from service.runtime.lanes import Run

log = logging.getLogger(__name__)

BUDGET_S = 1e-3
"""Seconds of runs in a tick; for as long, at most, others wait for the event loop."""


class _Entry(NamedTuple):
    image: np.ndarray
    deadline: float  # time.monotonic()
    future: asyncio.Future[Answer]
    queued_at: float


class Tick:
    """A queue before one session that the event loop owns.

    Attributes:
        tally: what has run.
    """

    def __init__(
        self,
        run: Run,
        *,
        name: str,
        cost: Callable[[tuple[int, ...]], float],
        max_batch: int | None = None,
        max_waiting: int | None = None,
        budget_s: float = BUDGET_S,
    ) -> None:
        """Prepare.

        Args:
            run: runs one batch of equal shapes; called on the event loop.
            name: of the model, for the log.
            cost: seconds that one more image of a shape takes in a batch, > 0.
            max_batch: images of a run, where the graph fixes it.
            max_waiting: images in the queue; None is no limit.
            budget_s: seconds of runs in a tick; an image that takes longer has a tick of its own.
        """
        self.tally = Tally()
        self._run = run
        self._name = name
        self._cost = cost
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._budget_s = budget_s
        self._waiting: list[_Entry] = []  # in the order of their coming

    def submit(self, image: np.ndarray, deadline: float) -> asyncio.Future[Answer]:
        """Queue one image for this tick. Cancelling the future takes the image out.

        Args:
            image: (H,W,anything), as `run` takes it without its batch axis.
            deadline: on the clock of `time.monotonic`; the image does not run after it.

        Returns:
            The answer to come. It raises DeadlineExceeded (504) if the deadline passed first, InternalError (500) if the run
            failed for this image, also alone.

        Raises:
            Overloaded: 429; the queue is full.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._tick)
        elif self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
            raise Overloaded(
                f"expected a place among {self._max_waiting} images that wait, there is none", retry_after_s=1
            )
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Entry(image, deadline, future, time.monotonic()))
        return future

    def has_room(self, shape: tuple[int, ...]) -> bool:
        """Say whether one more image of a shape would run in the next tick, as far as those before it are like it."""
        return not self._waiting or (len(self._waiting) + 1) * self._cost(shape) <= self._budget_s

    def _tick(self) -> None:
        """Run what waits, the oldest first, until the budget is spent."""
        left_s = self._budget_s
        alone = True  # one always goes, however large
        for shape, group in self._take().items():
            each_s = self._cost(shape)
            begin = 0
            while begin < len(group) and (alone or each_s <= left_s):
                count = min(max(1, int(left_s / each_s)), self._max_batch or len(group))
                batch = group[begin : begin + count]
                self._answer(batch)
                begin += count
                left_s -= len(batch) * each_s
                alone = False
            self._waiting += group[begin:]
        if self._waiting:
            self._waiting.sort(key=attrgetter("queued_at"))  # so that no shape waits for another that keeps coming
            asyncio.get_running_loop().call_soon(self._tick)

    def _take(self) -> dict[tuple[int, ...], list[_Entry]]:
        """Take everybody out of the queue, by shape; but for who has left and who is too late."""
        now = time.monotonic()
        groups: dict[tuple[int, ...], list[_Entry]] = {}
        for entry in self._waiting:
            if entry.future.done():  # its client went away
                continue
            if entry.deadline <= now:
                entry.future.set_exception(DeadlineExceeded("the time limit passed while the image was queued"))
                continue
            groups.setdefault(entry.image.shape, []).append(entry)
        self._waiting = []
        return groups

    def _answer(self, batch: Sequence[_Entry]) -> None:
        started = time.monotonic()
        images = [entry.image for entry in batch]
        count = len(images)
        try:
            together = images[0][None] if count == 1 else np.concatenate(images).reshape(count, *images[0].shape)
            outputs = self._run(together)
            if any(len(output) != count for output in outputs):
                raise ValueError(f"{count} images in, outputs of shapes {[output.shape for output in outputs]} out")
        except Exception:
            log.exception("model %s failed on a batch of %d images of shape %s", self._name, count, images[0].shape)
            if count == 1:
                batch[0].future.set_exception(InternalError())
            else:  # one of them may be the cause: alone, it hurts nobody else
                for entry in batch:
                    self._answer([entry])
            return
        run_s = time.monotonic() - started
        self.tally.plain += 1
        self.tally.pixels_used += count * images[0].shape[0] * images[0].shape[1]
        for entry, own in zip(batch, zip(*outputs, strict=True), strict=True):
            entry.future.set_result(Answer(own, started - entry.queued_at, run_s, count))

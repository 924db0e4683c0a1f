"""The batcher never waits: when the session is free it takes what is queued, up to a pixel budget, and goes.

A lone image leaves at once, a crowd leaves together. One thread owns the session; entries reach it through a queue and answers
go back to the event loop. Which images go together is grouping's choice (grouping.py). No admission here, no decoding, no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.errors import DeadlineExceeded, InternalError, Overloaded, ServiceError
from service.runtime.canvas import Tally, total
from service.runtime.choice import Choice
from service.runtime.deadline import Patience
from service.runtime.grouping import WINDOW, Grouping
from service.runtime.lanes import Lane, Lanes, RaggedRun, Run
from service.runtime.owner import Owner, settle

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What came out for one image.

    Attributes:
        outputs: the graph's outputs for this image, without the batch axis.
        queue_s: seconds between submission and the start of its run.
        run_s: seconds of its run.
        batch: images that ran together.
    """

    outputs: Sequence[np.ndarray]
    queue_s: float
    run_s: float
    batch: int


@dataclass(slots=True, eq=False)
class Entry:
    """An image on its way. The entry carries its future: nothing is looked up when an answer comes."""

    image: np.ndarray  # uint8 (H,W,C)
    size: tuple[int, int]  # height, width
    deadline: float  # time.monotonic()
    future: asyncio.Future[Answer]
    queued_at: float = field(default_factory=time.monotonic)


_Batch = tuple[list[Entry], Choice]


class Batcher(Owner[Entry]):
    """A queue before one session, and the thread that owns it."""

    def __init__(
        self,
        run: Run,
        *,
        name: str,
        grouping: Grouping,
        run_ragged: RaggedRun | None = None,
        lanes: Lanes | None = None,
        max_waiting: int | None = None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            run: runs one batch of equal sizes; called from the owner thread only.
            name: of the model, for the thread and the log.
            grouping: chooses batches.
            run_ragged: runs one batch of different sizes; must be there where the grouping chooses such, or in the lanes.
            lanes: for batches of small images, as soon as there are two of them, and for those of different sizes.
            max_waiting: images in the queue; None is no limit.
        """
        super().__init__(f"session-{name}")
        self._lane = Lane(run, run_ragged)
        self._lanes = lanes
        self._counting = threading.Lock()
        self._name = name
        self._grouping = grouping
        self._max_waiting = max_waiting
        self._patience: Patience[Answer] | None = None
        self._pending: list[Entry] = []  # the owner thread's
        self._planned = 0  # images that are taken out of it and have not begun

    @property
    def tally(self) -> Tally:
        """What has run."""
        return total([self._lane.tally, *([lane.tally for lane in self._lanes.lanes] if self._lanes else ())])

    def submit(self, image: np.ndarray, deadline: float) -> asyncio.Future[Answer]:
        """Queue one image. Cancelling the future takes it out.

        Args:
            image: uint8 (H,W,C).
            deadline: on the clock of `time.monotonic`; the image does not run after it.

        Returns:
            The answer to come. It raises DeadlineExceeded (504) if the deadline passed first, InternalError (500) if the run
            failed for this image, also alone.

        Raises:
            Overloaded: 429; the queue is full.
        """
        if self._max_waiting is not None:
            waiting = self._arrivals.qsize() + len(self._pending) + self._planned
            if waiting >= self._max_waiting:
                raise Overloaded(
                    f"expected a place among {self._max_waiting} images that wait, there is none", retry_after_s=1
                )
        loop = asyncio.get_running_loop()
        if self._patience is None or self._patience.loop is not loop:
            self._patience = Patience(loop)
        future: asyncio.Future[Answer] = loop.create_future()
        self._patience.watch(future, deadline)
        self._arrivals.put(Entry(image, image.shape[:2], deadline, future))
        return future

    def _own(self) -> None:
        pending = self._pending
        open_ = True
        while open_ or pending:
            if not pending:
                open_ = self._arrive(self._arrivals.get())
            while open_ and not self._arrivals.empty():
                open_ = self._arrive(self._arrivals.get())
            self._drop()
            if pending:
                self._run_all(self._plan())
        if self._lanes is not None:
            self._lanes.stop()

    def _arrive(self, entry: Entry | None) -> bool:
        if entry is None:
            return False
        self._pending.append(entry)
        return True

    def _drop(self) -> None:
        """Take out who has left and who is too late, of those who may run next: to look at all would cost a crowd too much."""
        kept: list[Entry] = []
        seen = 0
        for entry in self._pending:
            if len(kept) == WINDOW:
                break
            seen += 1
            if _is_here(entry):
                kept.append(entry)
        self._pending[:seen] = kept

    def _plan(self) -> list[_Batch]:
        """Take the next batches out of the queue."""
        window = self._pending[:WINDOW]
        try:
            choices = self._grouping.plan([entry.size for entry in window])
        except Exception:  # a fault in choosing must not end the thread that everybody waits for
            log.exception("model %s: no batch could be chosen, the oldest image goes alone", self._name)
            choices = [Choice([0], (1, *window[0].size), ragged=False)]
        chosen = {member for choice in choices for member in choice.members}
        self._pending[: len(window)] = [entry for place, entry in enumerate(window) if place not in chosen]
        self._planned = len(chosen)
        return [([window[member] for member in choice.members], choice) for choice in choices]

    def _run_all(self, batches: list[_Batch]) -> None:
        """Run small ones side by side, a core each, and others with all cores, one after the other."""
        rest = batches
        if self._lanes is not None:
            small = [batch for batch in batches if self._lanes.suit(batch[1])]
            if len(small) > 1 or any(choice.ragged for _, choice in small):
                self._lanes.run(self._run_batch, small)
                rest = [batch for batch in batches if not self._lanes.suit(batch[1])]
        for batch in rest:
            self._run_batch(batch, self._lane)

    def _run_batch(self, planned: _Batch, lane: Lane) -> None:
        """Run who is still there."""
        batch, choice = planned
        with self._counting:
            self._planned -= len(batch)
        here = [entry for entry in batch if _is_here(entry)]
        if len(here) < len(batch) and not self._grouping.keeps_shapes:  # else places stay empty
            ragged = choice.ragged and len(here) > 1
            size = choice.shape[1:] if ragged or not here else here[0].size
            choice = Choice(range(len(here)), (len(here), *size), ragged)
        if here:
            self._answer(here, choice, lane)

    def _answer(self, batch: list[Entry], choice: Choice, lane: Lane) -> None:
        started = time.monotonic()
        try:
            outputs = lane.outputs([entry.image for entry in batch], choice)
        except Exception:
            log.exception(
                "model %s failed on a batch of %d images on %s",
                self._name,
                len(batch),
                "×".join(map(str, choice.shape)),
            )
            if len(batch) == 1 and not choice.ragged:
                _settle([(batch[0], InternalError())])
            else:  # one of them may be the cause: alone, it hurts nobody else
                for entry in batch:
                    self._answer([entry], Choice([0], (1, *entry.size), ragged=False), lane)
            return
        run_s = time.monotonic() - started
        _settle(
            [
                (entry, Answer([output[i] for output in outputs], started - entry.queued_at, run_s, len(batch)))
                for i, entry in enumerate(batch)
            ]
        )


def _is_here(entry: Entry) -> bool:
    """Say whether an image is still to be run: its client waits, and its time has not passed. Tells the client if it has."""
    if entry.future.done():
        return False
    if entry.deadline <= time.monotonic():
        _settle([(entry, DeadlineExceeded("the time limit passed while the image was queued"))])
        return False
    return True


def _settle(results: Sequence[tuple[Entry, Answer | ServiceError]]) -> None:
    settle([(entry.future, result) for entry, result in results])

"""The batcher never waits: when the session is free it takes what is queued, up to a pixel budget, and goes.

A lone image leaves at once, a crowd leaves together. One thread owns the session; entries reach it through a queue and answers
go back to the event loop. No admission here (admission.py), no decoding, no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.errors import DeadlineExceeded, InternalError, ServiceError

log = logging.getLogger(__name__)

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Pixels uint8 (N,H,W,C) in; the outputs, each with N as its first axis, out."""


@dataclass(frozen=True, slots=True)
class Answer:
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
    deadline: float  # time.monotonic()
    future: asyncio.Future[Answer]
    queued_at: float = field(default_factory=time.monotonic)


class Batcher:
    """A queue before one session, and the thread that owns it."""

    def __init__(self, run: Run, *, name: str, max_batch_pixels: int, max_batch: int | None = None) -> None:
        """Prepare; `start` begins.

        Args:
            run: runs one batch of equal sizes; called from the owner thread only.
            name: of the model, for the thread and the log.
            max_batch_pixels: budget of a batch in pixels; a larger image runs alone.
            max_batch: images of a batch, where the graph fixes it.
        """
        self._run = run
        self._name = name
        self._max_batch_pixels = max_batch_pixels
        self._max_batch = max_batch
        self._arrivals: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._own, name=f"session-{name}", daemon=True)

    def start(self) -> None:
        """Start the owner thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the owner thread finish what is queued and end; blocks until it has."""
        self._arrivals.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the owner thread is there to answer."""
        return self._thread.is_alive()

    async def submit(self, image: np.ndarray, deadline: float) -> Answer:
        """Queue one image and wait for its answer.

        Cancelling this coroutine takes the image out of the queue.

        Args:
            image: uint8 (H,W,C).
            deadline: on the clock of `time.monotonic`; the image does not run after it.

        Raises:
            DeadlineExceeded: 504; the deadline passed first.
            InternalError: 500; the run failed for this image, also alone.
        """
        entry = Entry(image, deadline, asyncio.get_running_loop().create_future())
        self._arrivals.put(entry)
        return await entry.future

    def _own(self) -> None:
        pending: list[Entry] = []
        open_ = True
        while open_ or pending:
            if not pending:
                open_ = self._arrive(self._arrivals.get(), pending)
            while open_ and not self._arrivals.empty():
                open_ = self._arrive(self._arrivals.get(), pending)
            self._drop(pending)
            if pending:
                batch = self.take(pending)
                self._answer(batch)

    @staticmethod
    def _arrive(entry: Entry | None, pending: list[Entry]) -> bool:
        if entry is None:
            return False
        pending.append(entry)
        return True

    def _drop(self, pending: list[Entry]) -> None:
        """Take out who has left and who is too late; in place."""
        now = time.monotonic()
        kept = []
        for entry in pending:
            if entry.future.done():  # its client went away
                continue
            if entry.deadline <= now:
                _settle([(entry, DeadlineExceeded("the time limit passed while the image was queued"))])
                continue
            kept.append(entry)
        pending[:] = kept

    def take(self, pending: list[Entry]) -> list[Entry]:
        """Choose the next batch and take it out of `pending` (not empty): the oldest image and those that are as large as it.

        Equal sizes go together here; images of different sizes need a masked graph to share a canvas.
        """
        shape = pending[0].image.shape
        limit = max(1, self._max_batch_pixels // (shape[0] * shape[1]))
        if self._max_batch is not None:
            limit = min(limit, self._max_batch)
        batch: list[Entry] = []
        rest: list[Entry] = []
        for entry in pending:
            (batch if len(batch) < limit and entry.image.shape == shape else rest).append(entry)
        pending[:] = rest
        return batch

    def _answer(self, batch: list[Entry]) -> None:
        started = time.monotonic()
        try:
            # A lone image is a view; only a crowd is copied together.
            pixels = (
                batch[0].image[None] if len(batch) == 1 else np.stack([entry.image for entry in batch])
            )  # (N,H,W,C)
            outputs = self._run(pixels)
            if any(len(output) != len(batch) for output in outputs):
                raise ValueError(
                    f"{len(batch)} images in, outputs of shapes {[output.shape for output in outputs]} out"
                )
        except Exception:
            log.exception(
                "model %s failed on a batch of %d images of shape %s", self._name, len(batch), pixels.shape[1:]
            )
            if len(batch) == 1:
                _settle([(batch[0], InternalError())])
            else:  # one of them may be the cause: alone, it hurts nobody else
                for entry in batch:
                    self._answer([entry])
            return
        run_s = time.monotonic() - started
        _settle(
            [
                (entry, Answer([output[i] for output in outputs], started - entry.queued_at, run_s, len(batch)))
                for i, entry in enumerate(batch)
            ]
        )


def _settle(results: list[tuple[Entry, Answer | ServiceError]]) -> None:
    """Hand results to the event loop that waits for them; a loop that is gone has nobody waiting."""
    loop = results[0][0].future.get_loop()

    def deliver() -> None:
        for entry, result in results:
            if entry.future.done():
                continue
            if isinstance(result, Answer):
                entry.future.set_result(result)
            else:
                entry.future.set_exception(result)

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)

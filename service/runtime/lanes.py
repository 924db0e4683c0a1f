"""Lanes: threads that each own a session of one thread, so that small batches run side by side, a core each.

Within a small run the cores wait for each other more than they work: an image of 32×32 pixels took a convolutional network of 40
layers 0.27 ms on one core and no less on two. Which images are small enough is measured (crew.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from service.runtime.canvas import Easel, Tally
from service.runtime.choice import Choice

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Pixels uint8 (N,H,W,C) in; the outputs, each with N as its first axis, out."""

RaggedRun = Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]]
"""The same of a canvas and its extents int64 (N,4) (canvas.py)."""

T = TypeVar("T")


class Lane:
    """One session with the memory of its canvases. For one thread at a time.

    Attributes:
        tally: what has run.
    """

    def __init__(self, run: Run, run_ragged: RaggedRun | None = None) -> None:
        """Prepare.

        Args:
            run: runs one batch of equal sizes.
            run_ragged: runs one batch of different sizes; must be there where such come.
        """
        self.tally = Tally()
        self._run = run
        self._run_ragged = run_ragged
        self._easel = Easel()

    def outputs(self, images: Sequence[np.ndarray], choice: Choice) -> Sequence[np.ndarray]:
        """Run images uint8 (H,W,C) as was chosen; the outputs have as many entries as the choice has places.

        Raises:
            ValueError: the graph gives another number of entries.
            Exception: whatever the session raises.
        """
        places, height, width = choice.shape
        if choice.ragged:
            assert self._run_ragged is not None
            outputs = self._run_ragged(*self._easel.lay(images, choice.shape))
        else:
            outputs = self._run(self._easel.stack(images, places))
        outputs = self._easel.free(outputs)
        if any(len(output) != places for output in outputs):
            raise ValueError(f"{places} images in, outputs of shapes {[output.shape for output in outputs]} out")
        used = sum(image.shape[0] * image.shape[1] for image in images)
        tally = self.tally
        tally.pixels_used += used
        tally.pixels_wasted += places * height * width - used
        if choice.ragged:
            tally.ragged += 1
        else:
            tally.plain += 1
        return outputs


class Lanes:
    """Lanes side by side.

    Attributes:
        lanes: two or more; the caller's thread is the first one's.
        max_pixels: of an image; a larger one has all cores to itself sooner.
    """

    def __init__(self, lanes: Sequence[Lane], max_pixels: int, name: str) -> None:
        self.lanes = lanes
        self.max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(len(lanes) - 1, f"lane-{name}")

    @property
    def count(self) -> int:
        """How many batches run at once."""
        return len(self.lanes)

    def suit(self, choice: Choice) -> bool:
        """Say whether a batch is for a lane: of small images, or of different sizes, for which nothing else has a session."""
        return choice.ragged or choice.shape[1] * choice.shape[2] <= self.max_pixels

    def run(self, work: Callable[[T, Lane], None], batches: Sequence[T]) -> None:
        """Do all, in the order given, each in the lane that is free first; returns when all is done.

        Args:
            work: what to do with a batch in a lane; called from several threads at once.
            batches: any.
        """
        waiting = deque(batches)
        others = [self._threads.submit(_drive, work, waiting, lane) for lane in self.lanes[1 : len(waiting)]]
        _drive(work, waiting, self.lanes[0])
        for other in others:
            other.result()

    def stop(self) -> None:
        """Let the threads end; they have nothing to do."""
        self._threads.shutdown(wait=False)


def _drive(work: Callable[[T, Lane], None], waiting: deque[T], lane: Lane) -> None:
    while True:
        try:
            batch = waiting.popleft()
        except IndexError:
            return
        work(batch, lane)

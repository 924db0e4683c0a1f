"""One image on its way through tiles: how far it is, and whether that is far enough. What runs it is tiles.py."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.codecs.rows import Rows
from service.errors import DeadlineExceeded
from service.runtime.batcher import Answer
from service.runtime.grid import Grid

_JUDGED_FROM, _HOPELESS = 0.1, 4.0
"""Part of the time limit after which an image that would take so many times all of it is given up."""


@dataclass(eq=False)
class Course:
    """An image and what has been done of it; times are on the clock of its deadline.

    Attributes:
        rows: of the image.
        grid: its tiles.
        deadline: when it must be answered.
        future: waits for the answer.
        queued_at: when it came.
        started: when its first batch began.
        done: tiles that have run.
        logged_at: when it was last spoken of.
        steps: runs a batch at each step and returns the outputs; None before the first.
    """

    rows: Rows
    grid: Grid
    deadline: float
    future: asyncio.Future[Answer]
    queued_at: float
    started: float = 0.0
    done: int = 0
    logged_at: float = 0.0
    steps: Generator[None, None, Sequence[np.ndarray]] | None = field(default=None, repr=False)

    def check_time(self, now: float) -> None:
        """Give up what is too late, and what will be by far.

        Raises:
            DeadlineExceeded: 504; says how far it came.
        """
        if now >= self.deadline:
            raise DeadlineExceeded(f"the time limit passed after {self.done} of {self.grid.tiles} tiles")
        elapsed, limit = now - self.started, self.deadline - self.queued_at
        if self.done and elapsed > _JUDGED_FROM * limit:
            whole = elapsed / self.done * self.grid.tiles
            if whole > _HOPELESS * limit:
                raise DeadlineExceeded(
                    f"{self.done} of {self.grid.tiles} tiles took {elapsed:.1f} s, so that all would take about {whole:.0f} s;"
                    f" the time limit is {limit:.0f} s"
                )

    def words(self) -> str:
        """Say which image it is, and how far it came."""
        header, tiles = self.rows.header, self.grid.tiles
        return f"{header.width}×{header.height}: {self.done} of {tiles} tiles, {100 * self.done // tiles} %"

    def close(self) -> None:
        """Let go of what running it holds."""
        if self.steps is not None:
            self.steps.close()
            self.steps = None  # which knows this course, and so would keep it

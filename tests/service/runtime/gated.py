"""A run that waits for the test, a batcher before it, and pictures of one value. No sleeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from service.runtime.batcher import Answer, Batcher
from service.runtime.grouping import Grouping

LATER = 1e9  # a deadline that never comes


class GatedRun:
    """A run that begins when the test lets it; its output is the image's first pixel, and 255 is poison."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        self.batches.append(pixels.shape)
        self.entered.release()
        assert self.gate.acquire(timeout=20)
        first = pixels[:, 0, 0, 0]
        if (first == 255).any():
            raise RuntimeError("poison")
        return [first.astype(np.float32)]

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


def picture(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def values(answers: Sequence[Answer]) -> list[float]:
    return [float(answer.outputs[0]) for answer in answers]


async def settle() -> None:
    """Let every task that can go on do so until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def with_batcher(test: Callable[[Batcher, GatedRun], Coroutine[Any, Any, None]], **options: int) -> None:
    run = GatedRun()
    batcher = Batcher(run, name="test", grouping=Grouping(None, **{"max_pixels": 10_000, **options}))
    batcher.start()
    try:
        asyncio.run(test(batcher, run))
    finally:
        run.gate.release(1000)
        batcher.stop()
    assert not batcher.alive

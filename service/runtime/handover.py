"""Whether a run is so short that handing it to a thread costs more than the run: measured, both of it, on this machine.

Nothing here knows how either is done in earnest (batcher.py, tick.py).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from service.runtime.network import Network
from service.runtime.stopwatch import agree

_ROUNDS = 200

_WORTH = 10.0
"""A run may take so many times as long as a hand-over to an idle thread and back before the thread is worth it.

Not once: under load the thread and the event loop also wait for each other's interpreter lock. With runs of 17, 20 and 47 µs, and
hand-overs of 13 µs, 32 clients got 2.4, 1.8 and 1.1 times as many answers from the event loop; on a busy machine, one reading each.
"""

_SIDE = 32
"""Pixels, of the images that are timed, where the network takes one so small."""

_MANY = 8
"""Images that are timed together."""

_RUNS = 40
_RUNS_S = 0.01
_AGREE = 6
"""Of each shape so many runs, or for so long; the fastest counts. While other processes load their models few are left alone.

It ends, too, once six of each have taken about as long as the fastest. Timed one shape after the other, not turn by turn, one of
16 models got a limit of 8² pixels instead of 19²: other work had slowed the small one alone."""

_LOOK_BELOW = 10
"""A warm-up picture may take so many times as long as what the event loop runs: it is larger than what may come."""


@dataclass(frozen=True)
class Shortness:
    """What is short enough for the event loop, of one model.

    Attributes:
        max_pixels: of an image; a larger one goes to the thread.
        pixels: of the images that were timed.
        each_s: seconds that one more of them takes in a batch.
        pixel_s: seconds that one more pixel takes.
    """

    max_pixels: int
    pixels: int
    each_s: float
    pixel_s: float

    def image_s(self, pixels: int) -> float:
        """Seconds that one more image of so many pixels takes in a batch; a small one no less than a third of what was timed."""
        return max(self.each_s + self.pixel_s * (pixels - self.pixels), self.each_s / 3, 1e-6)


def longest_s() -> float:
    """Seconds of the longest run that a thread is not worth."""
    return _WORTH * hand_over_s()


@cache
def hand_over_s() -> float:
    """Measure, once in a process, how long nothing takes from an event loop to a thread and back; seconds, the median."""
    took: list[float] = []
    thread = threading.Thread(
        target=lambda: asyncio.run(_hand_over(took)), name="hand-over"
    )  # a loop may run here already
    thread.start()
    thread.join()
    return float(np.median(took))


async def _hand_over(took: list[float]) -> None:
    loop = asyncio.get_running_loop()
    handed: queue.SimpleQueue[asyncio.Future[None] | None] = queue.SimpleQueue()

    def give_back() -> None:
        while (future := handed.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    other = threading.Thread(target=give_back, name="hand-over-other")
    other.start()
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        future: asyncio.Future[None] = loop.create_future()
        handed.put(future)
        await future
        took.append(time.perf_counter() - started)
    handed.put(None)
    other.join()


def may_be_short(network: Network, height: int, width: int, took_s: float) -> bool:
    """Say whether it is worth making a session of one thread to measure, by runs of the one that is there.

    Args:
        network: that is there; has run.
        height: of its images in pixels.
        width: as height.
        took_s: seconds of one such run, which other work may have made longer, but nothing shorter.
    """
    longest = _LOOK_BELOW * longest_s()
    return took_s < longest or _fastest_s(network, (network.fixed.batch or 1, height, width))[0] < longest


def measure_shortness(network: Network, smallest: int) -> Shortness | None:
    """Measure a network. Returns None where none of its images is short enough.

    Args:
        network: on the CPU, in one thread.
        smallest: side in pixels of the smallest square image that it takes.
    """
    fixed = network.fixed
    side = max(_SIDE, smallest)
    height, width = fixed.height or side, fixed.width or side
    pixels = height * width
    shapes = [(fixed.batch or 1, height, width), (fixed.batch or _MANY, height, width)]
    if not (fixed.height or fixed.width):
        shapes.append((fixed.batch or 1, 2 * height, 2 * width))
    one_s, many_s, *large_s = _fastest_s(network, *shapes)
    each_s = many_s / fixed.batch if fixed.batch else max(0.0, many_s - one_s) / (_MANY - 1)
    if not large_s:
        return Shortness(pixels, pixels, each_s, 0.0) if one_s <= longest_s() else None
    pixel_s = max(0.0, large_s[0] - one_s) / (3 * pixels)
    spare_s = longest_s() - one_s
    # Between the sizes that were timed it is a line; beyond them it is none that is known.
    if spare_s >= 3 * pixels * pixel_s:
        most = 4 * pixels
    elif pixel_s:
        most = int(pixels + spare_s / pixel_s)
    else:  # a small image takes too long, and a large one was not seen to take longer
        return None
    return Shortness(most, pixels, each_s, pixel_s) if most >= smallest**2 else None


def _fastest_s(network: Network, *shapes: tuple[int, int, int]) -> list[float]:
    """Time runs of images, height and width; seconds of the fastest of each. Turn by turn: what disturbs one disturbs all."""
    rng = np.random.default_rng(0)
    runs = [partial(network.run, rng.integers(0, 256, (*shape, network.channels), np.uint8)) for shape in shapes]
    for run in runs:
        run()
    took: list[list[float]] = [[] for _ in runs]
    began = ended = time.perf_counter()
    for _ in range(_RUNS):
        for run, its in zip(runs, took, strict=True):
            started = ended
            run()
            ended = time.perf_counter()
            its.append(ended - started)
        if ended - began > _RUNS_S * len(runs) or all(agree(its, _AGREE) for its in took):
            break
    return [min(its) for its in took]

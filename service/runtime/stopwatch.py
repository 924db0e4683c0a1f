"""The stopwatch: how long a network's runs take, alone, in batches and on canvases, as curves over an image's pixels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np

from service.runtime.costs import BatchCost, Curve
from service.runtime.network import Network

_SIDE = 16
"""Pixels; of the smallest images that are timed, where the network takes some so small. What batching saves shows on small ones."""

_SIDES = 4
"""Sides that are timed at most, each twice the one before."""

_MANY = 8
"""Images that are timed together; fewer of a slow network."""

_RUN_S = 0.002
"""About what one timed run may take, and so how many images are in it. Beside other work, longer ones are rarely left alone."""

_CROWD = 16
"""Images of a usual batch."""

_REPEAT_S = 0.01
"""For about so long each is repeated, and the fastest kept: what else the machine does makes single ones longer, by much."""

_AGREE, _NEAR = 3, 1.03
"""So many runs that take at most so many times as long as the fastest say that it was no accident: more would not change it."""

_ENOUGH_S = 0.5
"""After this long nothing is repeated more than it must be."""

Kind = Literal["alone", "plain", "ragged"]
"""Images one after the other, in a batch of the plain graph, on a canvas."""


class Stopwatch:
    """Times square images of a network. What is compared takes about as long, so that interruptions hit it alike.

    Attributes:
        sides: of the images in pixels, ascending; `grow` adds to them.
    """

    def __init__(self, network: Network, smallest: int) -> None:
        """Begin with two sides.

        Args:
            network: has run; for this thread only.
            smallest: side in pixels of the smallest square image that it takes.
        """
        self._network = network
        self._rng = np.random.default_rng(0)
        self._fastest: dict[tuple[Kind, int, int], float] = {}  # seconds by kind, images and side
        self._together: dict[int, int] = {}  # images by side
        self._started = time.perf_counter()
        side = max(_SIDE, smallest)
        self.sides = [side, 2 * side]

    def grow(self) -> bool:
        """Add the next side. Returns whether there is one."""
        if len(self.sides) == _SIDES:
            return False
        self.sides.append(2 * self.sides[-1])
        return True

    def _many(self, side: int) -> int:
        """Images that are timed together; how long one takes need not be known well for that."""
        if side not in self._together:
            run = self._run_of("alone", self._pixels(1, side))
            run()
            self._together[side] = int(np.clip(_RUN_S / min(_clock(run), _clock(run)), 2, _MANY))
        return self._together[side]

    def _pixels(self, images: int, side: int) -> np.ndarray:
        return self._rng.integers(0, 256, (images, side, side, self._network.channels), np.uint8)

    def _seconds(self, kind: Kind, images: int, side: int) -> float:
        """Time a number of images, a few times when it is first asked for; the first run may allocate, and does not count."""
        known = self._fastest.get((kind, images, side))
        if known is not None:
            return known
        run = self._run_of(kind, self._pixels(images, side))
        run()
        took = [_clock(run)]
        late = time.perf_counter() - self._started > _ENOUGH_S
        for _ in range(int(np.clip(_REPEAT_S / took[0], 1 if late else 2, 30))):
            took.append(_clock(run))
            if agree(took):
                break
        self._fastest[kind, images, side] = min(took)
        return min(took)

    def _run_of(self, kind: Kind, pixels: np.ndarray) -> Callable[[], object]:
        network = self._network
        if kind == "plain":
            return partial(network.run, pixels)
        if kind == "alone":
            return lambda: [network.run(image[None]) for image in pixels]
        n, h, w, _ = pixels.shape
        return partial(network.run_ragged, pixels, np.tile(np.array([0, 0, h, w], np.int64), (n, 1)))

    def image_s(self, side: int) -> float:
        """Give the seconds of one image alone."""
        many = self._many(side)
        return self._seconds("alone", many, side) / many

    def crowd_s(self, kind: Literal["plain", "ragged"], side: int) -> float:
        """Give the seconds of one image of a usual batch, without waste."""
        return self._run_s(kind) / _CROWD + self._each_s(kind, side)

    def _run_s(self, kind: Literal["plain", "ragged"]) -> float:
        """What is left of a run without its images: as it takes when there are as many, twice as many."""
        side = self.sides[0]
        few_s, more_s = (self._seconds(kind, count * self._many(side), side) for count in (1, 2))
        return min(max(0.0, 2 * few_s - more_s), few_s)

    def _each_s(self, kind: Literal["plain", "ragged"], side: int) -> float:
        many = self._many(side)
        return max(self._seconds(kind, many, side) - self._run_s(kind), 1e-9) / many

    def alone(self) -> Curve:
        """Give what an image costs by itself, over its pixels."""
        return Curve.through([(side**2, self.image_s(side)) for side in self.sides])

    def batches(self, kind: Literal["plain", "ragged"]) -> BatchCost:
        """Give what batches of one graph cost."""
        return BatchCost(self._run_s(kind), Curve.through([(side**2, self._each_s(kind, side)) for side in self.sides]))

    def switch_s(self) -> float:
        """Give how much longer a run takes that follows one of another shape; 0 where that is no more than noise."""
        side = self.sides[0]
        one, other = (np.zeros((1, side, width, self._network.channels), np.uint8) for width in (side, side + 8))
        after_same = after_other = float("inf")
        for _ in range(3):
            self._network.run(other)
            after_other = min(after_other, _clock(partial(self._network.run, one)))
            after_same = min(after_same, _clock(partial(self._network.run, one)))
        extra_s = after_other - after_same
        return extra_s if extra_s > 0.5 * after_same else 0.0


def agree(took: Sequence[float], enough: int = _AGREE) -> bool:
    """Whether enough runs, the fastest among them, took about as long as the fastest."""
    near = _NEAR * min(took)
    return sum(each <= near for each in took) >= enough


def _clock(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started

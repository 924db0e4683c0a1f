"""Grouping: which of the queued images run together, and on what canvas, by what runs were measured to cost (costs.py).

The next batch is the one that gets most done in its time, where what it gets done is the time that its images would take one by
one. The oldest image is in it, so nobody starves; only where preparing a shape costs may it wait a little longer. Nothing here
runs anything or knows what an image shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.runtime.canvas import bucket_count, bucket_side
from service.runtime.costs import Costs

Shape = tuple[int, int, int]
"""Places, height, width of an array of images."""

WINDOW = 512
"""Images that are looked at, the oldest: finding more to choose from would take longer than it saves."""

_SIDES = 4
"""Heights that are tried, and widths: from the oldest image's own up to _REACH times that."""

_REACH = 3.0

_MARGIN = 1.05
"""By how much a canvas must be expected to be faster before it is preferred: what was measured has errors."""

_READY = 1.25
"""Where preparing a shape costs, a canvas may be slower by this than a size that is not prepared: it will be used again."""

_SHAPES = 64
"""Sizes that are remembered to be waiting for their own shape."""

_STINT = 4.0
"""Where preparing a shape costs, it may be used for so many times as long before the oldest image must have its turn."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The next batch.

    Attributes:
        members: places in the queue, ascending.
        shape: of the array that they run in; it may have more places than members.
        ragged: whether they lie on a canvas, or are all of the array's size.
    """

    members: Sequence[int]
    shape: Shape
    ragged: bool


class Grouping:
    """Chooses batches for one model; remembers which shapes are prepared. For one thread."""

    def __init__(self, costs: Costs | None, *, max_pixels: int, max_images: int | None = None) -> None:
        """Begin.

        Args:
            costs: as measured; None: equal sizes go together, and nothing else.
            max_pixels: of an array; an image that has more goes alone.
            max_images: of a batch, where the graph fixes it.
        """
        self._costs = costs
        self._max_pixels = max_pixels
        self._max_images = max_images
        self._bucketed = costs is not None and costs.switch_s > 0  # few shapes, as each new one costs
        self._prepared: dict[bool, Shape] = {}  # the last shape, by whether it was a canvas: two sessions
        self._lost_s: dict[Shape, float] = {}  # by not having a size's own shape prepared
        self._last: Choice | None = None
        self._stint_s = 0.0

    def choose(self, sizes: Sequence[tuple[int, int]]) -> Choice:
        """Choose the next batch.

        Args:
            sizes: height and width of each image that waits, in pixels, the oldest first; at least one, WINDOW at most.
        """
        costs = self._costs
        if costs is None:
            return self._equal(sizes, costs)
        if not self._bucketed:
            mixed = costs.ragged is not None and any(size != sizes[0] for size in sizes)
            plain = self._equal(sizes, costs)
            return self._better(sizes, plain, costs) if mixed else plain
        choice = self._stay(sizes, costs)
        if choice is None:
            plain = self._equal(sizes, costs)
            choice = plain if costs.ragged is None else self._better(sizes, plain, costs)
            if choice.ragged and self._is_due(plain, choice, costs):
                choice = plain
        seconds = self._seconds(choice, costs)
        again = self._last is not None and (choice.shape, choice.ragged) == (self._last.shape, self._last.ragged)
        self._stint_s = self._stint_s + seconds if again else 0.0
        self._last = choice
        self._prepared[choice.ragged] = choice.shape
        return choice

    def _equal(self, sizes: Sequence[tuple[int, int]], costs: Costs | None) -> Choice:
        """The oldest image and those that are as large as it."""
        height, width = sizes[0]
        limit = max(1, self._max_pixels // (height * width))
        if self._max_images is not None:
            limit = min(limit, self._max_images)
        members = [place for place, size in enumerate(sizes) if size == sizes[0]][:limit]
        count = len(members)
        if not self._bucketed or costs is None:
            return Choice(members, (count, height, width), ragged=False)
        up = bucket_count(count)
        down = (
            up if up == count else up // 2
        )  # some wait for the next batch, or some places stay empty: what gets more done
        choices = [Choice(members[:down], (down, height, width), ragged=False)]
        if up <= limit:
            choices.append(Choice(members, (up, height, width), ragged=False))
        return max(choices, key=lambda choice: len(choice.members) / self._seconds(choice, costs))

    def _seconds(self, choice: Choice, costs: Costs) -> float:
        """Give how long a batch is expected to take."""
        prepared = choice.shape == self._prepared.get(choice.ragged)
        return _run_s(choice, costs) + (0.0 if prepared else costs.switch_s)

    def _is_due(self, plain: Choice, ragged: Choice, costs: Costs) -> bool:
        """Say whether a size has lost as much on canvases as its own shape costs: then it is prepared, to be used from now on.

        Twice the best that could have been done, whatever comes (Karlin, Manasse, Rudolph, Sleator 1988, the ski rental).
        """
        if plain.shape == self._prepared.get(False):
            return False
        share = len(plain.members) / len(ragged.members)
        lost_s = _run_s(ragged, costs) * share - _run_s(plain, costs)
        if plain.shape not in self._lost_s and len(self._lost_s) == _SHAPES:
            self._lost_s.clear()
        lost_s = self._lost_s.get(plain.shape, 0.0) + max(0.0, lost_s)
        self._lost_s[plain.shape] = lost_s
        if lost_s < costs.switch_s:
            return False
        del self._lost_s[plain.shape]
        return True

    def _stay(self, sizes: Sequence[tuple[int, int]], costs: Costs) -> Choice | None:
        """Fill the shape that has just run once more, though the oldest image may not be in it, for as long as that is fair."""
        if self._last is None or self._stint_s >= _STINT * costs.switch_s:
            return None
        shape, ragged = self._last.shape, self._last.ragged
        places, height, width = shape
        if ragged:
            members = [place for place, (h, w) in enumerate(sizes) if h <= height and w <= width]
            members = sorted(members, key=lambda place: -sizes[place][0] * sizes[place][1])[:places]
        else:
            members = [place for place, size in enumerate(sizes) if size == (height, width)][:places]
        used = sum(sizes[place][0] * sizes[place][1] for place in members)
        # Less than half full, it is not the shape for what waits now.
        return Choice(sorted(members), shape, ragged) if 2 * used >= places * height * width else None

    def _better(self, sizes: Sequence[tuple[int, int]], plain: Choice, costs: Costs) -> Choice:
        """The canvas that gets most done in its time, or the plain batch where no canvas is clearly better."""
        assert costs.ragged is not None
        each = np.array(sizes, np.int64)  # (n,2)
        alone_s = costs.alone.at(each[:, 0] * each[:, 1]) + costs.switch_s  # (n,)
        # The largest first: of those that fit, they waste least. But the oldest before all.
        order = np.concatenate([[0], 1 + np.argsort(-alone_s[1:], kind="stable")])
        each, alone_s = each[order], alone_s[order]
        heights, widths = _ladder(sizes[0][0], each[:, 0]), _ladder(sizes[0][1], each[:, 1])
        canvases = np.array([(height, width) for height in heights for width in widths])  # (k,2)
        fits = (each[None, :, 0] <= canvases[:, :1]) & (each[None, :, 1] <= canvases[:, 1:])  # (k,n)
        count = fits.cumsum(1)  # images on the canvas, if it ends with this one
        done_s = (fits * alone_s).cumsum(1)
        pixels = canvases[:, :1] * canvases[:, 1:]  # (k,1) of one place
        places = _bucket_counts(count) if self._bucketed else count
        takes_s = costs.ragged.run_s + places * costs.ragged.each.at(pixels)
        if self._bucketed:
            prepared = self._prepared.get(True, (0, 0, 0))
            takes_s += costs.switch_s * ~((places == prepared[0]) & (canvases == prepared[1:]).all(1, keepdims=True))
        possible = ((count == 1) | (places * pixels <= self._max_pixels)) & (pixels <= costs.ragged_pixels)
        pace = np.where(possible, done_s / takes_s, 0.0)
        best, last = divmod(int(pace.argmax()), len(sizes))
        plain_pace = float(alone_s[0]) * len(plain.members) / self._seconds(plain, costs)
        waits = self._bucketed and plain.shape != self._prepared.get(False)
        if pace[best, last] <= plain_pace * (1 / _READY if waits else _MARGIN):
            return plain
        chosen = fits[best, : last + 1]
        if self._bucketed:
            height, width = canvases[best]
        else:  # nothing is gained by a round number: as small as they allow
            height, width = each[: last + 1][chosen].max(0)
        members = sorted(order[: last + 1][chosen].tolist())
        return Choice(members, (int(places[best, last]), int(height), int(width)), ragged=True)


def _run_s(choice: Choice, costs: Costs) -> float:
    """Give how long a batch takes whose shape is prepared."""
    places, height, width = choice.shape
    if choice.ragged:
        assert costs.ragged is not None  # canvases are chosen only where they can be run
        return costs.ragged.of(places, height * width)
    return float(costs.alone.at(height * width)) if places == 1 else costs.plain.of(places, height * width)


def _ladder(side: int, sides: np.ndarray) -> Iterable[int]:
    """Give sides of canvases to try: rounded, from what the oldest needs up to what anybody needs."""
    low = bucket_side(side)
    high = max(low, min(bucket_side(int(sides.max())), bucket_side(int(_REACH * side))))
    rungs = np.geomspace(low, high, _SIDES)
    return sorted({bucket_side(int(rung)) for rung in rungs})


def _bucket_counts(counts: np.ndarray) -> np.ndarray:
    """Round up to powers of two, as `bucket_count` does; 0 stays."""
    rounded: np.ndarray = np.where(counts > 0, 1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), 0)
    return rounded

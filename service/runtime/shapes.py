"""Shapes: which of the queued images run together where changing an array's shape costs, as on CUDA.

There every new shape has the plans of all convolutions made anew, which takes longer than many runs. So shapes are few and round,
the prepared one is used for as long as that is fair, and a batch is the one that gets most done in its time, where what it gets
done is the time that its images would take one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from service.runtime.canvas import bucket_count, bucket_side
from service.runtime.choice import Choice, Shape
from service.runtime.costs import Costs

_WINDOW = 512
"""Images that are looked at, the oldest: finding more to choose from would take longer than it saves."""

_SIDES = 4
"""Heights that are tried, and widths: from the oldest image's own up to _REACH times that."""

_REACH = 3.0

_MARGIN = 1.05
"""By how much a canvas must be expected to be faster before it is preferred: what was measured has errors."""

_READY = 1.25
"""A canvas may be slower by this than a size that is not prepared: it will be used again."""

_SHAPES = 64
"""Sizes that are remembered to be waiting for their own shape."""

_STINT = 4.0
"""Once prepared, a shape may be used for so many times as long as that took before the oldest image must have its turn."""


class Shapes:
    """Chooses batches for one model; remembers which shapes are prepared. For one thread."""

    def __init__(self, costs: Costs, max_pixels: int) -> None:
        """Begin.

        Args:
            costs: as measured; switch_s > 0.
            max_pixels: of an array; an image that has more goes alone.
        """
        self._costs = costs
        self._max_pixels = max_pixels
        self._prepared: dict[bool, Shape] = {}  # the last shape, by whether it was a canvas: two sessions
        self._lost_s: dict[Shape, float] = {}  # by not having a size's own shape prepared
        self._last: Choice | None = None
        self._stint_s = 0.0

    def choose(self, sizes: Sequence[tuple[int, int]]) -> Choice:
        """Choose the next batch.

        Args:
            sizes: height and width of each image that waits, in pixels, the oldest first; at least one.
        """
        sizes = sizes[:_WINDOW]
        choice = self._stay(sizes)
        if choice is None:
            plain = self._equal(sizes)
            choice = plain if self._costs.ragged is None else self._better(sizes, plain)
            if choice.ragged and self._is_due(plain, choice):
                choice = plain
        seconds = self._seconds(choice)
        again = self._last is not None and (choice.shape, choice.ragged) == (self._last.shape, self._last.ragged)
        self._stint_s = self._stint_s + seconds if again else 0.0
        self._last = choice
        self._prepared[choice.ragged] = choice.shape
        return choice

    def _equal(self, sizes: Sequence[tuple[int, int]]) -> Choice:
        """The oldest image and those that are as large as it; some of them wait, or some places stay empty: what gets more done."""
        height, width = sizes[0]
        limit = max(1, self._max_pixels // (height * width))
        members = [place for place, size in enumerate(sizes) if size == sizes[0]][:limit]
        up = bucket_count(len(members))
        down = up if up == len(members) else up // 2
        choices = [Choice(members[:down], (down, height, width), ragged=False)]
        if up <= limit:
            choices.append(Choice(members, (up, height, width), ragged=False))
        return max(choices, key=lambda choice: len(choice.members) / self._seconds(choice))

    def _seconds(self, choice: Choice) -> float:
        """Give how long a batch is expected to take."""
        prepared = choice.shape == self._prepared.get(choice.ragged)
        return self._run_s(choice) + (0.0 if prepared else self._costs.switch_s)

    def _run_s(self, choice: Choice) -> float:
        """Give how long it takes once its shape is prepared."""
        places, height, width = choice.shape
        if choice.ragged:
            assert self._costs.ragged is not None  # canvases are chosen only where they can be run
            return self._costs.ragged.of(places, height * width)
        alone = places == 1
        return float(self._costs.alone.at(height * width)) if alone else self._costs.plain.of(places, height * width)

    def _is_due(self, plain: Choice, ragged: Choice) -> bool:
        """Say whether a size has lost as much on canvases as its own shape costs: then it is prepared, to be used from now on.

        Twice the best that could have been done, whatever comes (Karlin, Manasse, Rudolph, Sleator 1988, the ski rental).
        """
        if plain.shape == self._prepared.get(False):
            return False
        share = len(plain.members) / len(ragged.members)
        lost_s = self._run_s(ragged) * share - self._run_s(plain)
        if plain.shape not in self._lost_s and len(self._lost_s) == _SHAPES:
            self._lost_s.clear()
        lost_s = self._lost_s.get(plain.shape, 0.0) + max(0.0, lost_s)
        self._lost_s[plain.shape] = lost_s
        if lost_s < self._costs.switch_s:
            return False
        del self._lost_s[plain.shape]
        return True

    def _stay(self, sizes: Sequence[tuple[int, int]]) -> Choice | None:
        """Fill the shape that has just run once more, though the oldest image may not be in it, for as long as that is fair."""
        if self._last is None or self._stint_s >= _STINT * self._costs.switch_s:
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

    def _better(self, sizes: Sequence[tuple[int, int]], plain: Choice) -> Choice:
        """The canvas that gets most done in its time, or the plain batch where no canvas is clearly better."""
        costs = self._costs
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
        places = _bucket_counts(count)
        takes_s = costs.ragged.run_s + places * costs.ragged.each.at(pixels)
        prepared = self._prepared.get(True, (0, 0, 0))
        takes_s += costs.switch_s * ~((places == prepared[0]) & (canvases == prepared[1:]).all(1, keepdims=True))
        possible = (count == 1) | (places * pixels <= self._max_pixels)
        pace = np.where(possible, done_s / takes_s, 0.0)
        best, last = divmod(int(pace.argmax()), len(sizes))
        plain_pace = float(alone_s[0]) * len(plain.members) / self._seconds(plain)
        if pace[best, last] <= plain_pace * (_MARGIN if plain.shape == self._prepared.get(False) else 1 / _READY):
            return plain
        height, width = canvases[best]
        members = sorted(order[: last + 1][fits[best, : last + 1]].tolist())
        return Choice(members, (int(places[best, last]), int(height), int(width)), ragged=True)


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

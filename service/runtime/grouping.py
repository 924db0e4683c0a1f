"""Grouping: which of the queued images run together, and on what canvas, by what runs were measured to cost (costs.py).

The next batch is the one that gets most done in its time, where what it gets done is the time that its images would take one by
one. The oldest image is always in it, so nobody starves. Nothing here runs anything or knows what an image shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.runtime.canvas import bucket_count, bucket_side
from service.runtime.costs import Costs

Shape = tuple[int, int, int]
"""Places, height, width of an array of images."""

_WINDOW = 512
"""Images that are looked at, the oldest: finding more to choose from would take longer than it saves."""

_SIDES = 6
"""Heights that are tried, and widths: from the oldest image's own up to _REACH times that."""

_REACH = 3.0

_MARGIN = 1.05
"""By how much a canvas must be expected to be faster before it is preferred: what was measured has errors."""

_STINT = 4.0
"""Once a shape is prepared, it may be used for so many times as long as that took before the oldest image has its turn."""


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
    """Chooses batches for one model; remembers the shapes that are prepared. For one thread."""

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
        self._bucketed = costs is not None and costs.switch_s > 0
        self._plain: Shape | None = None
        self._ragged: Shape | None = None
        self._stint_s = 0.0

    def choose(self, sizes: Sequence[tuple[int, int]]) -> Choice:
        """Choose the next batch.

        Args:
            sizes: height and width of each image that waits, in pixels, the oldest first; at least one.
        """
        sizes = sizes[:_WINDOW]
        costs = self._costs
        plain = self._equal(sizes)
        choice = plain
        if costs is not None and costs.ragged is not None and (self._bucketed or len(plain.members) < len(sizes)):
            choice = self._stay(sizes) or self._better(sizes, plain)
        self._remember(choice)
        return choice

    def _limit(self, height: int, width: int) -> int:
        limit = max(1, self._max_pixels // (height * width))
        return limit if self._max_images is None else min(limit, self._max_images)

    def _equal(self, sizes: Sequence[tuple[int, int]]) -> Choice:
        """The oldest image and those that are as large as it."""
        height, width = sizes[0]
        limit = self._limit(height, width)
        members = [place for place, size in enumerate(sizes) if size == sizes[0]][:limit]
        places = min(bucket_count(len(members)), limit) if self._bucketed else len(members)
        return Choice(members, (places, height, width), ragged=False)

    def _seconds(self, choice: Choice) -> float:
        costs = self._costs
        assert costs is not None  # asked only where there are any
        cost = costs.ragged if choice.ragged else costs.plain
        assert cost is not None
        places, height, width = choice.shape
        prepared = choice.shape == (self._ragged if choice.ragged else self._plain)
        return cost.of(places, places * height * width) + (0.0 if prepared else costs.switch_s)

    def _remember(self, choice: Choice) -> None:
        if not self._bucketed:
            return
        prepared = choice.shape == (self._ragged if choice.ragged else self._plain)
        seconds = self._seconds(choice)
        self._stint_s = self._stint_s + seconds if prepared else 0.0
        if choice.ragged:
            self._ragged = choice.shape
        else:
            self._plain = choice.shape

    def _stay(self, sizes: Sequence[tuple[int, int]]) -> Choice | None:
        """Fill the canvas that is prepared once more, though the oldest image may not be on it, for as long as that is fair."""
        costs = self._costs
        assert costs is not None
        if self._ragged is None or self._stint_s >= _STINT * costs.switch_s:
            return None
        places, height, width = self._ragged
        members = [place for place, (h, w) in enumerate(sizes) if h <= height and w <= width]
        members = sorted(members, key=lambda place: -sizes[place][0] * sizes[place][1])[:places]
        used = sum(sizes[place][0] * sizes[place][1] for place in members)
        # Less than half full, it is not the canvas for what waits now.
        return Choice(sorted(members), self._ragged, ragged=True) if 2 * used >= places * height * width else None

    def _better(self, sizes: Sequence[tuple[int, int]], plain: Choice) -> Choice:
        """The canvas that gets most done in its time, or the plain batch where no canvas is clearly better."""
        costs = self._costs
        assert costs is not None
        assert costs.ragged is not None
        each = np.array(sizes, np.int64)  # (n,2)
        alone_s = costs.alone(0) + costs.plain.pixel_s * (each[:, 0] * each[:, 1])  # (n,)
        # The largest first: of those that fit, they waste least. But the oldest before all.
        order = np.concatenate([[0], 1 + np.argsort(-alone_s[1:], kind="stable")])
        each, alone_s = each[order], alone_s[order]
        canvases = np.array(
            [
                (height, width)
                for height in _ladder(sizes[0][0], each[:, 0])
                for width in _ladder(sizes[0][1], each[:, 1])
            ]
        )  # (k,2)
        fits = (each[None, :, 0] <= canvases[:, :1]) & (each[None, :, 1] <= canvases[:, 1:])  # (k,n)
        count = fits.cumsum(1)  # images on the canvas, if it ends with this one
        done_s = (fits * alone_s).cumsum(1)
        pixels = canvases[:, :1] * canvases[:, 1:]  # (k,1) of one place
        places = _bucket_counts(count) if self._bucketed else count
        takes_s = costs.ragged.of(0, 0) + places * (costs.ragged.image_s + costs.ragged.pixel_s * pixels)
        if self._bucketed:
            prepared = np.zeros_like(places, bool)
            if self._ragged is not None:
                prepared = (places == self._ragged[0]) & (canvases == self._ragged[1:]).all(1, keepdims=True)
            takes_s = takes_s + costs.switch_s * ~prepared
        possible = (places == 1) | (places * pixels <= self._max_pixels)
        pace = np.where(possible, done_s / takes_s, 0.0)
        best, last = divmod(int(pace.argmax()), len(sizes))
        members = order[: last + 1][fits[best, : last + 1]]
        plain_pace = float(alone_s[0]) * len(plain.members) / self._seconds(plain)
        if pace[best, last] <= _MARGIN * plain_pace:
            return plain
        if self._bucketed:
            shape = (int(places[best, last]), int(canvases[best, 0]), int(canvases[best, 1]))
        else:  # nothing is gained by a round number: as small as they allow
            height, width = each[: last + 1][fits[best, : last + 1]].max(0)
            shape = (len(members), int(height), int(width))
        return Choice(sorted(members.tolist()), shape, ragged=True)


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

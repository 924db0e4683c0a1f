"""The partition of a crowd into the batches that are expected to take least time in all, where shapes cost nothing to change.

Sizes lie in a plane. It is halved again and again, across and down in turns, down to single sizes; every part may be one canvas,
or be left to its halves, or, where it is a single size, be batches of the plain graph. From the smallest parts up each takes what
costs less, as CART prunes a tree (Breiman, Friedman, Olshen, Stone 1984); so the best of all such partitions is found in one pass.
It takes some microseconds an image: what a crowd of tiny images saves must not be spent on choosing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from graphs.anysize.alike import Alike
from service.runtime.choice import Choice
from service.runtime.costs import Costs

_MARGIN = 1.05
"""By how much a canvas must be expected to be faster before it is preferred: what was measured has errors."""

QUEUE_S = 20e-6
"""Seconds of a batch's way through the queue, beside its run: with runs that took no time, images alone took so much more each."""

_MANY = 8
"""Batches for a lane; with so many, none of them keeps it busy for long at the end."""


def partition(
    sizes: Sequence[tuple[int, int]], costs: Costs | None, max_pixels: int, max_images: int | None = None
) -> list[Choice]:
    """Part a crowd.

    Args:
        sizes: height and width of each image in pixels, the oldest first; at least one.
        costs: as measured; None: equal sizes go together, and nothing else.
        max_pixels: of an array; an image that has more goes alone.
        max_images: of an array, where the graph fixes it.

    Returns:
        Batches with every image in one of them, the oldest first.
    """
    if costs is None or costs.ragged is None or all(size == sizes[0] for size in sizes):
        choices = list(_equal(range(len(sizes)), sizes, max_pixels, max_images))
    elif costs.alike is not None:
        choices = list(_by_class(np.array(sizes, np.int64), costs, costs.alike, max_pixels))
    else:
        choices = _Tree(np.array(sizes, np.int64), costs, max_pixels).choices()
    return sorted(choices, key=lambda choice: choice.members[0])


def _equal(
    places: Sequence[int], sizes: Sequence[tuple[int, int]], max_pixels: int, max_images: int | None
) -> Iterator[Choice]:
    """Put equal sizes together, and nothing else."""
    equal: dict[tuple[int, int], list[int]] = {}
    for place, size in zip(places, sizes, strict=True):
        equal.setdefault(size, []).append(place)
    for size, members in equal.items():
        yield from _cut(members, size, max_pixels, max_images)


def _cut(members: Sequence[int], size: tuple[int, int], max_pixels: int, max_images: int | None) -> Iterator[Choice]:
    """Cut images of one size into batches that keep the budget."""
    limit = max(1, max_pixels // (size[0] * size[1]))
    if max_images is not None:
        limit = min(limit, max_images)
    for begin in range(0, len(members), limit):
        batch = members[begin : begin + limit]
        yield Choice(batch, (len(batch), *size), ragged=False)


def spread(choices: Sequence[Choice], lanes: int) -> list[Choice]:
    """Cut what would keep one lane busy while others have nothing to do.

    Args:
        choices: batches without empty places.
        lanes: that run them side by side.

    Returns:
        The same images in as many batches or more.
    """
    if len(choices) >= _MANY * lanes or lanes == 1:
        return list(choices)
    areas = [math.prod(choice.shape) for choice in choices]
    result = []
    for choice, area in zip(choices, areas, strict=True):
        parts = min(len(choice.members), -(-area * lanes // sum(areas)))
        count = -(-len(choice.members) // parts)
        for begin in range(0, len(choice.members), count):
            members = choice.members[begin : begin + count]
            result.append(Choice(members, (len(members), *choice.shape[1:]), choice.ragged and len(members) > 1))
    return result


def _by_class(sizes: np.ndarray, costs: Costs, alike: Alike, max_pixels: int) -> Iterator[Choice]:
    """Lay those that are alike on a canvas, where that is expected to take less time; others as equal sizes.

    Args:
        sizes: (n,2).
        costs: as measured.
        alike: of the masked graph.
        max_pixels: of an array.
    """
    assert costs.ragged is not None
    classes = alike.classes("height", sizes[:, 0]) << 32 | alike.classes("width", sizes[:, 1])
    order = classes.argsort(kind="stable")  # within a class by age
    ordered = sizes[order]
    begins = np.flatnonzero(np.diff(classes[order], prepend=-1))
    counts = np.diff(begins, append=len(sizes))
    largest, smallest = np.maximum.reduceat(ordered, begins), np.minimum.reduceat(ordered, begins)
    areas = largest.prod(1)
    limits = np.maximum(1, max_pixels // areas)
    canvas_s = -(-counts // limits) * (costs.ragged.run_s + QUEUE_S) + counts * costs.ragged.each.at(areas)
    alone_s = np.add.reduceat(costs.alone.at(ordered.prod(1)) + QUEUE_S, begins)
    mixed = (largest != smallest).any(1) & (areas <= costs.ragged_pixels) & (areas * 2 <= max_pixels)
    better = mixed & (canvas_s < alone_s)
    for place, begin in enumerate(begins.tolist()):
        members = order[begin : begin + int(counts[place])].tolist()
        if better[place]:
            (height, width), limit = largest[place].tolist(), int(limits[place])
            for first in range(0, len(members), limit):
                part = members[first : first + limit]
                yield Choice(part, (len(part), height, width), ragged=True)
        else:
            yield from _equal(members, [(int(h), int(w)) for h, w in sizes[members]], max_pixels, None)


def _interleaved(sizes: np.ndarray) -> np.ndarray:
    """Give each size (n,2) the bits of its height and width in turns (Morton 1966): parts of the plane are runs of equal fronts."""
    code = np.zeros(len(sizes), np.int64)
    for bit in range(int(sizes.max()).bit_length()):
        code |= ((sizes[:, 0] >> bit) & 1) << (2 * bit + 1) | ((sizes[:, 1] >> bit) & 1) << (2 * bit)
    return code


class _Tree:
    """The parts of one crowd, kept in the order of their codes, so that each part is a range."""

    def __init__(self, sizes: np.ndarray, costs: Costs, max_pixels: int) -> None:
        codes = _interleaved(sizes)
        self._order = codes.argsort(kind="stable")  # within a size by age
        self._sizes = sizes[self._order]
        self._codes = codes[self._order]
        self._costs = costs
        self._max_pixels = max_pixels

    def choices(self) -> list[Choice]:
        """Find the best."""
        firsts = np.flatnonzero(np.diff(self._codes, prepend=-1))  # of each size
        taken = np.zeros(len(self._codes), bool)
        choices = []
        for begin, end, height, width in reversed(self._canvases(firsts)):  # the largest first: its halves are its own
            if not taken[begin]:
                taken[begin:end] = True
                choices.append(Choice(self._members(begin, end), (end - begin, height, width), ragged=True))
        for begin, end in pairwise([*firsts.tolist(), len(self._codes)]):
            if not taken[begin]:
                height, width = self._sizes[begin].tolist()
                choices += _cut(self._members(begin, end), (height, width), self._max_pixels, None)
        return choices

    def _members(self, begin: int, end: int) -> list[int]:
        members: list[int] = sorted(self._order[begin:end].tolist())
        return members

    def _canvases(self, begins: np.ndarray) -> list[tuple[int, int, int, int]]:
        """Give the ranges (begin, end, height, width) that are better as a canvas than as their halves, from the smallest up."""
        costs = self._costs
        assert costs.ragged is not None
        counts = np.diff(begins, append=len(self._codes))
        heights, widths = self._sizes[begins].T
        codes = self._codes[begins]
        areas = heights * widths
        batches = -(-counts * areas // self._max_pixels)
        many_s = batches * costs.plain.run_s + counts * costs.plain.each.at(areas)
        best_s = np.where(counts == 1, costs.alone.at(areas), np.minimum(many_s, counts * costs.alone.at(areas)))
        found: list[tuple[int, int, int, int]] = []
        # Neighbours meet where what is left of their codes is equal: only there is anything to decide.
        for level in np.unique(np.frexp((codes[1:] ^ codes[:-1]).astype(np.float64))[1]).tolist():
            fronts = codes >> level
            firsts = np.flatnonzero(np.diff(fronts, prepend=-1))
            merged = np.diff(firsts, append=len(codes)) > 1
            best_s, counts = np.add.reduceat(best_s, firsts), np.add.reduceat(counts, firsts)
            heights, widths = np.maximum.reduceat(heights, firsts), np.maximum.reduceat(widths, firsts)
            begins, codes = begins[firsts], codes[firsts]
            areas = heights * widths
            possible = (areas <= costs.ragged_pixels) & (counts * areas <= self._max_pixels)
            if not possible.any():
                break  # and larger ones are not either
            canvas_s = costs.ragged.run_s + counts * costs.ragged.each.at(areas)
            better = merged & possible & (canvas_s * _MARGIN < best_s)
            best_s = np.where(better, canvas_s, best_s)
            for place in np.flatnonzero(better).tolist():
                begin = int(begins[place])
                found.append((begin, begin + int(counts[place]), int(heights[place]), int(widths[place])))
        return found

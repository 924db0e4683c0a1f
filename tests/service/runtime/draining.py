"""Crowds that are let through a grouping until nobody waits, by costs made up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphs.anysize.alike import Alike
from service.runtime.choice import Choice
from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.grouping import WINDOW, Grouping

Sizes = list[tuple[int, int]]


def line(run_s: float, pixel_s: float) -> Curve:
    return Curve.through([(10**2, run_s + pixel_s * 10**2), (1000**2, run_s + pixel_s * 1000**2)])


def costs(
    run_s: float,
    pixel_s: float,
    *,
    mask: float = 1.1,
    switch_s: float = 0.0,
    ragged_pixels: float = float("inf"),
    alike: Alike | None = None,
) -> Costs:
    """Of a network whose runs cost run_s and whose pixels cost pixel_s, `mask` times that on a canvas."""
    each = line(0.0, pixel_s)
    ragged = BatchCost(run_s, line(0.0, pixel_s * mask))
    return Costs(line(run_s, pixel_s), BatchCost(run_s, each), ragged, ragged_pixels, switch_s, alike)


@dataclass
class Drained:
    choices: list[Choice]
    batches: list[list[int]]  # who was in each, by arrival
    seconds: float  # as predicted
    switches: int


def drain(grouping: Grouping, sizes: Sizes, prices: Costs) -> Drained:
    """Let everybody run who waits, as the batcher does, and add up what it costs."""
    pending = list(range(len(sizes)))
    drained = Drained([], [], 0.0, 0)
    prepared: dict[bool, tuple[int, int, int]] = {}
    while pending:
        window = pending[:WINDOW]
        planned = grouping.plan([sizes[i] for i in window])
        assert planned
        for choice in planned:
            places, height, width = choice.shape
            assert 1 <= len(choice.members) <= places
            assert list(choice.members) == sorted(set(choice.members))
            batch = [window[member] for member in choice.members]
            for i in batch:
                assert sizes[i][0] <= height
                assert sizes[i][1] <= width
                assert choice.ragged or sizes[i] == (height, width)
            drained.seconds += seconds_of(choice, prices)
            if prepared.get(choice.ragged) != choice.shape:
                drained.switches += 1
                drained.seconds += prices.switch_s
            prepared[choice.ragged] = choice.shape
            drained.choices.append(choice)
            drained.batches.append(batch)
            pending = [i for i in pending if i not in set(batch)]
    assert sorted(i for batch in drained.batches for i in batch) == list(range(len(sizes)))
    return drained


def seconds_of(choice: Choice, prices: Costs) -> float:
    places, height, width = choice.shape
    if choice.ragged:
        assert prices.ragged
        return prices.ragged.of(places, height * width)
    return float(prices.alone.at(height * width)) if places == 1 else prices.plain.of(places, height * width)


def sizes_of(rng: np.random.Generator, count: int, low: int, high: int) -> Sizes:
    return [(int(h), int(w)) for h, w in rng.integers(low, high + 1, (count, 2))]


def alone_s(sizes: Sizes, prices: Costs) -> float:
    return sum(float(prices.alone.at(h * w)) + prices.switch_s for h, w in sizes)

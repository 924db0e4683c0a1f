"""Grouping alone: who goes together, by costs made up; nobody starves, nothing is lost, nothing is slower than alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs.anysize.alike import Alike
from graphs.anysize.sizes import Level
from service.runtime.choice import Choice
from service.runtime.costs import Costs
from service.runtime.grouping import WINDOW, Grouping
from service.runtime.partition import QUEUE_S
from tests.service.runtime.draining import Sizes, alone_s, costs, drain, sizes_of

FOURS = Alike(
    Any, frozenset({Level("height", 4, -1), Level("width", 4, -1), Level("width", 8, -1), Level("height", 8, 3)})
)  # type: ignore[arg-type]
"""Cells of 4 pixels, and of 8; along the height those of 8 begin 4 later: still, four lengths are alike."""

SMALL_NET = costs(200e-6, 0.1e-6)
LARGE_NET = costs(500e-6, 0.2e-6)


def test_without_costs_only_equal_sizes_go_together() -> None:
    grouping = Grouping(None, max_pixels=10**6)
    assert grouping.plan([(4, 4), (2, 8), (4, 4), (8, 2)]) == [
        Choice([0, 2], (2, 4, 4), ragged=False),
        Choice([1], (1, 2, 8), ragged=False),
        Choice([3], (1, 8, 2), ragged=False),
    ]


def test_equal_sizes_run_on_the_plain_graph() -> None:
    (choice,) = Grouping(SMALL_NET, max_pixels=10**6).plan([(30, 40)] * 5)
    assert list(choice.members) == [0, 1, 2, 3, 4]
    assert (choice.shape, choice.ragged) == ((5, 30, 40), False)


def test_small_images_of_different_sizes_share_a_canvas_as_small_as_they_allow() -> None:
    planned = Grouping(SMALL_NET, max_pixels=10**6).plan([(30, 28), (29, 31), (31, 30), (30, 27)])
    assert planned == [Choice([0, 1, 2, 3], (4, 31, 31), ragged=True)]


def test_images_whose_pixels_cost_more_than_a_run_go_alone(rng: np.random.Generator) -> None:
    sizes = sizes_of(rng, 64, 200, 600)
    drained = drain(Grouping(LARGE_NET, max_pixels=2**20), sizes, LARGE_NET)
    assert not any(choice.ragged for choice in drained.choices)


def test_canvases_larger_than_what_was_measured_to_pay_are_not_used(rng: np.random.Generator) -> None:
    prices = costs(5e-3, 0.1e-6, ragged_pixels=64 * 64)
    sizes = sizes_of(rng, 100, 16, 128)
    drained = drain(Grouping(prices, max_pixels=2**20), sizes, prices)
    canvases = [choice.shape for choice in drained.choices if choice.ragged]
    assert canvases
    assert all(height * width <= 64 * 64 for _, height, width in canvases)


@pytest.mark.parametrize("max_pixels", [1, 5000, 2**20])
def test_batch_keeps_its_budget(rng: np.random.Generator, max_pixels: int) -> None:
    drained = drain(Grouping(SMALL_NET, max_pixels=max_pixels), sizes_of(rng, 200, 8, 64), SMALL_NET)
    for choice in drained.choices:
        places, height, width = choice.shape
        assert places == 1 or places * height * width <= max_pixels


def test_everybody_runs_once_the_oldest_first(rng: np.random.Generator) -> None:
    """Batches begin with who has waited longest of those that are left; who is beyond the window comes after it."""
    sizes = sizes_of(rng, WINDOW + 300, 8, 64)
    drained = drain(Grouping(SMALL_NET, max_pixels=2**20), sizes, SMALL_NET)
    left = set(range(len(sizes)))
    for batch in drained.batches:
        assert min(left) in batch
        left -= set(batch)


def test_partition_is_the_best_of_all_of_its_kind(rng: np.random.Generator) -> None:
    """Against every way of joining the halves, tried out."""
    for _ in range(20):
        prices = costs(10 ** rng.uniform(-4.5, -3), 1e-7, mask=rng.uniform(0.9, 1.5))
        sizes = sizes_of(rng, int(rng.integers(2, 30)), 1, 64)
        drained = drain(Grouping(prices, max_pixels=2**20), sizes, prices)
        assert drained.seconds <= tried_out(sizes, prices, (128, 128), (0, 0)) * (
            1.05 + 1e-9
        )  # 1.05: the margin for canvases


def tried_out(sizes: Sizes, prices: Costs, extent: tuple[int, int], origin: tuple[int, int]) -> float:
    """The least seconds for those sizes that lie in a part of the plane of sizes, by recursion."""
    (height, width), (top, left) = extent, origin
    inside = [(h, w) for h, w in sizes if top <= h < top + height and left <= w < left + width]
    if not inside:
        return 0.0
    if len(set(inside)) == 1:
        pixels = inside[0][0] * inside[0][1]
        return min(len(inside) * float(prices.alone.at(pixels)), prices.plain.of(len(inside), pixels))
    assert prices.ragged
    canvas_s = prices.ragged.of(len(inside), max(h for h, _ in inside) * max(w for _, w in inside))
    if height >= width:
        half = height // 2
        parts = [((half, width), (top, left)), ((half, width), (top + half, left))]
    else:
        half = width // 2
        parts = [((height, half), (top, left)), ((height, half), (top, left + half))]
    return min(canvas_s, sum(tried_out(inside, prices, *part) for part in parts))


def test_nothing_is_expected_to_take_longer_than_one_by_one(rng: np.random.Generator) -> None:
    """Random costs, random crowds, on the CPU; with what each run costs in the queue."""
    for _ in range(30):
        prices = costs(10 ** rng.uniform(-5, -2), 10 ** rng.uniform(-8, -6), mask=rng.uniform(0.9, 2.0))
        sizes = sizes_of(rng, int(rng.integers(1, 80)), 1, int(rng.integers(2, 300)))
        drained = drain(Grouping(prices, max_pixels=2**20), sizes, prices)
        expected_s = drained.seconds + QUEUE_S * len(drained.choices)
        assert expected_s <= (alone_s(sizes, prices) + QUEUE_S * len(sizes)) * (1 + 1e-9)


def test_crowd_of_small_images_is_expected_to_take_two_thirds_of_one_by_one(rng: np.random.Generator) -> None:
    """Runs of 0.2 ms, pixels of 0.1 µs, 10 % more under a mask: the digits on two cores."""
    sizes = sizes_of(rng, 500, 8, 64)
    drained = drain(Grouping(SMALL_NET, max_pixels=2**20), sizes, SMALL_NET)
    assert drained.seconds <= alone_s(sizes, SMALL_NET) * 2 / 3


def test_only_alike_images_share_a_canvas_where_the_masked_graph_needs_that(rng: np.random.Generator) -> None:
    prices = costs(200e-6, 0.05e-6, mask=1.05, alike=FOURS)
    sizes = sizes_of(rng, 2000, 8, 64)
    drained = drain(Grouping(prices, max_pixels=2**20), sizes, prices)
    canvases = 0
    for choice, batch in zip(drained.choices, drained.batches, strict=True):
        _, height, width = choice.shape
        heights, widths = {-(-sizes[i][0] // 4) for i in batch}, {-(-sizes[i][1] // 4) for i in batch}
        assert heights == {-(-height // 4)}
        assert widths == {-(-width // 4)}
        canvases += choice.ragged
        assert not choice.ragged or len({sizes[i] for i in batch}) > 1
    assert canvases > 100
    assert drained.seconds < alone_s(sizes, prices)


@pytest.mark.parametrize("max_pixels", [1, 3000, 2**20])
def test_canvases_of_alike_images_keep_the_budget_and_what_pays(rng: np.random.Generator, max_pixels: int) -> None:
    prices = costs(200e-6, 0.05e-6, mask=1.05, ragged_pixels=40 * 40, alike=FOURS)
    for choice in drain(Grouping(prices, max_pixels=max_pixels), sizes_of(rng, 500, 8, 64), prices).choices:
        places, height, width = choice.shape
        assert places == 1 or places * height * width <= max_pixels
        assert not choice.ragged or height * width <= 40 * 40

"""Grouping where preparing a shape costs, as on a GPU: shapes are round and few, and nobody waits for them for long."""

from __future__ import annotations

import numpy as np
import pytest

from service.runtime.canvas import bucket_count, bucket_side
from service.runtime.choice import Choice
from service.runtime.costs import Costs
from service.runtime.grouping import Grouping
from tests.service.runtime.draining import Sizes, alone_s, costs, drain, sizes_of

GPU = costs(3e-3, 5e-9, switch_s=0.1)


def first(grouping: Grouping, sizes: Sizes) -> Choice:
    return grouping.plan(sizes)[0]


def test_where_preparing_a_shape_costs_shapes_are_round_and_few(rng: np.random.Generator) -> None:
    sizes = sizes_of(rng, 512, 200, 600)
    drained = drain(Grouping(GPU, max_pixels=2**23), sizes, GPU)
    for choice in drained.choices:
        places, height, width = choice.shape
        assert bucket_count(places) == places
        if choice.ragged:
            assert (bucket_side(height), bucket_side(width)) == (height, width)
    assert drained.switches <= 16
    assert drained.seconds <= alone_s(sizes, GPU) / 10


def test_a_first_seen_size_needs_no_shape_of_its_own() -> None:
    """A lone image of any size goes onto the canvas that is prepared already."""
    grouping = Grouping(GPU, max_pixels=2**23)
    shapes = {first(grouping, [size]).shape for size in [(300, 400), (290, 390), (299, 401), (317, 415), (310, 386)]}
    assert shapes == {(1, 320, 416)}


def test_a_size_that_keeps_coming_gets_its_own_shape_in_the_end() -> None:
    """Once it has lost on canvases about what preparing its shape costs, and not before."""
    grouping = Grouping(GPU, max_pixels=2**23)
    on_canvas_s = 0.0
    for _ in range(10_000):
        choice = first(grouping, [(300, 400)])
        if not choice.ragged:
            break
        assert GPU.ragged
        on_canvas_s += GPU.ragged.of(1, choice.shape[1] * choice.shape[2]) - float(GPU.alone.at(300 * 400))
    assert GPU.switch_s * 0.5 <= on_canvas_s <= GPU.switch_s * 2
    assert not any(first(grouping, [(300, 400)]).ragged for _ in range(100))


def test_runs_of_one_shape_go_back_to_back() -> None:
    """Two sizes in turns, no masked graph: as few changes as there are sizes, not one a batch."""
    plain = Costs(GPU.alone, GPU.plain, switch_s=GPU.switch_s)
    sizes = [(300, 400), (600, 500)] * 64
    drained = drain(Grouping(plain, max_pixels=2**21), sizes, plain)
    assert len(drained.choices) >= 12
    assert drained.switches <= 4


def test_where_preparing_a_shape_costs_nobody_waits_for_long(rng: np.random.Generator) -> None:
    """One odd image among a crowd that never ends: it runs before four times the cost of a shape has passed, and one batch."""
    grouping = Grouping(GPU, max_pixels=2**21)
    crowd: Sizes = [(300, 300)] * 64
    first(grouping, crowd)
    waiting: Sizes = [(590, 40), *crowd]
    waited_s = 0.0
    for _ in range(10_000):
        choice = first(grouping, waiting)
        if 0 in choice.members:
            break
        places, height, width = choice.shape
        assert GPU.ragged
        cost = GPU.ragged if choice.ragged else GPU.plain
        waited_s += cost.of(places, height * width)
    else:
        pytest.fail("it starved")
    assert waited_s <= 4 * GPU.switch_s + GPU.plain.of(32, 300 * 300)


def test_half_filled_places_are_run_where_waiting_would_cost_more() -> None:
    """Five images of one size where shapes cost: eight places or four, never five."""
    plain = Costs(GPU.alone, GPU.plain, switch_s=GPU.switch_s)
    choice = first(Grouping(plain, max_pixels=2**23), [(300, 300)] * 5)
    assert choice.shape[0] in {4, 8}
    assert len(choice.members) == min(5, choice.shape[0])

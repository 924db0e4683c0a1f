"""What is short enough for the event loop: by a clock that only runs advance, so that nothing here depends on the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from graphs.front import Geometry
from service.runtime import handover
from service.runtime.handover import Shortness, hand_over_s, longest_s, measure_shortness

HAND_OVER_S = 1e-5


class Clocked:
    """A network whose runs take what a formula says, on a clock of its own."""

    channels = 3

    def __init__(self, seconds: Callable[[int, int], float], fixed: Geometry | None = None) -> None:
        self.fixed = fixed or Geometry(None, None, None)
        self.now = 0.0
        self.shapes: list[tuple[int, ...]] = []
        self._seconds = seconds

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self.shapes.append(pixels.shape)
        self.now += self._seconds(pixels.shape[0], pixels.shape[1] * pixels.shape[2])
        return [pixels]


def measured(monkeypatch: pytest.MonkeyPatch, network: Clocked, smallest: int = 1) -> Shortness | None:
    monkeypatch.setattr(handover, "hand_over_s", lambda: HAND_OVER_S)
    monkeypatch.setattr(handover.time, "perf_counter", lambda: network.now)
    return measure_shortness(network, smallest)  # type: ignore[arg-type]


def linear(run_s: float, image_s: float, pixel_s: float) -> Callable[[int, int], float]:
    return lambda images, pixels: run_s + images * (image_s + pixels * pixel_s)


def test_largest_image_is_the_one_whose_run_takes_as_long_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    short = measured(monkeypatch, Clocked(linear(3e-5, 1e-5, 3e-8)))
    assert short is not None
    assert short.max_pixels == pytest.approx((longest_s() - 4e-5) / 3e-8, rel=1e-3)
    for pixels in (900, 1024, 2000):
        assert short.image_s(pixels) == pytest.approx(1e-5 + pixels * 3e-8, rel=1e-6)


def test_nothing_is_said_beyond_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    short = measured(monkeypatch, Clocked(linear(1e-6, 1e-6, 1e-12)))
    assert short is not None
    assert short.max_pixels == 64 * 64


@pytest.mark.parametrize(
    "seconds", [linear(2e-3, 0, 0), linear(2e-4, 0, 1e-9), linear(0, 0, 1e-3), linear(2e-3, 0, -1e-8)]
)
def test_longer_runs_are_left_to_the_thread(
    monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int, int], float]
) -> None:
    assert measured(monkeypatch, Clocked(seconds), smallest=8) is None


def test_large_warm_up_picture_does_not_hide_that_small_ones_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """32×32 takes 1.3 times what is allowed; 28×28 takes as much as is allowed."""
    short = measured(monkeypatch, Clocked(linear(0, 0, longest_of(HAND_OVER_S) / 784)), smallest=8)
    assert short is not None
    assert short.max_pixels == pytest.approx(784, abs=1)


def longest_of(hand_over: float) -> float:
    return handover._WORTH * hand_over


@pytest.mark.parametrize(
    ("fixed", "most"), [(Geometry(None, 8, 12), 96), (Geometry(4, 8, 12), 96), (Geometry(4, None, None), 4096)]
)
def test_sizes_that_the_graph_fixes_are_the_ones_that_are_timed(
    monkeypatch: pytest.MonkeyPatch, fixed: Geometry, most: int
) -> None:
    network = Clocked(linear(1e-6, 1e-6, 1e-10), fixed)
    short = measured(monkeypatch, network)
    assert short is not None
    assert short.max_pixels == most
    for images, height, width, _ in network.shapes:
        assert images == (fixed.batch or images)
        assert (height, width) == (fixed.height or height, fixed.width or width)
    slow = Clocked(linear(1e-3, 0, 0), fixed)
    assert measured(monkeypatch, slow) is None


def test_image_is_never_free() -> None:
    short = Shortness(4096, 1024, 1e-5, 1e-8)
    assert short.image_s(1) >= 1e-5 / 3
    assert Shortness(4096, 1024, 0.0, 0.0).image_s(1) > 0


def test_hand_over_is_measured_also_within_an_event_loop() -> None:
    hand_over_s.cache_clear()

    async def within() -> float:
        return hand_over_s()

    took = asyncio.run(within())
    assert 0 < took < 1
    assert hand_over_s() == took  # once in a process

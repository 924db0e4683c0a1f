"""What warm-up finds out, with a network whose runs take the time that the test says; no clock is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphs.front import Geometry
from service.runtime import stopwatch
from service.runtime.warmup import measure


class Timed:
    """A network of one output, each image's sum; its runs move a clock of their own."""

    def __init__(self, *, run_s: float, pixel_s: float, mask: float = 1.0, switch_s: float = 0.0) -> None:
        self.fixed = Geometry(None, None, None)
        self.channels = 3
        self.outputs = ["logits"]
        self.session = type("Session", (), {"device": "cpu"})()
        self.ragged_bytes = 0
        self.weights = 1000
        self.built = self.dropped = 0
        self.wrong_by = 0.0
        self.now = 0.0
        self._run_s, self._pixel_s, self._mask, self._switch_s = run_s, pixel_s, mask, switch_s
        self._last: dict[bool, tuple[int, ...]] = {}

    def seconds(self, images: int, pixels: int, *, ragged: bool = False) -> float:
        return self._run_s + images * pixels * self._pixel_s * (self._mask if ragged else 1.0)

    def _take(self, shape: tuple[int, ...], *, ragged: bool) -> None:
        self.now += self.seconds(shape[0], shape[1] * shape[2], ragged=ragged)
        if self._last.get(ragged) != shape:
            self.now += self._switch_s
        self._last[ragged] = shape

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        self._take(pixels.shape, ragged=False)
        return [pixels.astype(np.float64).sum((1, 2, 3))[:, None]]

    def run_ragged(self, pixels: np.ndarray, extents: np.ndarray) -> list[np.ndarray]:
        self._take(pixels.shape, ragged=True)
        sums = [image[:h, :w].astype(np.float64).sum() for image, (_, _, h, w) in zip(pixels, extents, strict=True)]
        return [np.array(sums)[:, None] * (1 + self.wrong_by)]

    def build_ragged(self, graph: object) -> None:
        self.built += 1
        self.ragged_bytes = self.weights

    def drop_ragged(self) -> None:
        self.dropped += 1
        self.ragged_bytes = 0


GRAPH: Any = object()  # the masked graph; only handed on


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(**options: float) -> Any:
        made = Timed(**options)

        def clock(run: Callable[[], object]) -> float:
            started = made.now
            run()
            return made.now - started

        monkeypatch.setattr(stopwatch, "_clock", clock)
        return made

    return make


def test_curves_are_what_runs_take(network: Callable[..., Any]) -> None:
    """Relative error ≤ 1e-6, alone, in batches and on canvases; between and beyond what was timed."""
    timed = network(run_s=2e-4, pixel_s=1e-7, mask=1.1)
    costs, reason = measure(timed, GRAPH, 1)
    assert reason == ""
    assert costs is not None
    assert costs.ragged is not None
    for pixels in (300, 1024, 3000, 20_000):
        assert abs(float(costs.alone.at(pixels)) / timed.seconds(1, pixels) - 1) <= 1e-6
        assert abs(costs.plain.of(30, pixels) / timed.seconds(30, pixels) - 1) <= 1e-6
        assert abs(costs.ragged.of(30, pixels) / timed.seconds(30, pixels, ragged=True) - 1) <= 1e-6
    assert costs.switch_s == 0


def test_largest_canvas_is_where_masks_take_what_sharing_saves(network: Callable[..., Any]) -> None:
    """Masks take a third of the pixels' time; a run is worth 4000 pixels: canvases of 32×32 pay, of 128×128 do not."""
    costs, _ = measure(network(run_s=4e-4, pixel_s=1e-7, mask=1.33), GRAPH, 1)
    assert costs is not None
    assert 32**2 < costs.ragged_pixels <= 128**2


def test_where_sharing_a_run_saves_nothing_no_session_is_built(network: Callable[..., Any]) -> None:
    timed = network(run_s=1e-6, pixel_s=1e-6)
    costs, reason = measure(timed, GRAPH, 1)
    assert costs is None
    assert "sharing a run does not pay" in reason
    assert timed.built == 0


def test_where_masks_cost_more_than_is_saved_the_session_is_dropped(network: Callable[..., Any]) -> None:
    timed = network(run_s=1e-4, pixel_s=1e-6, mask=2.0)
    costs, reason = measure(timed, GRAPH, 1)
    assert costs is None
    assert "masks cost more" in reason
    assert (timed.built, timed.dropped) == (1, 1)


def test_heavy_weights_are_not_held_twice_for_tiny_images(network: Callable[..., Any]) -> None:
    options = {"run_s": 1e-4, "pixel_s": 1e-7, "mask": 1.5}
    light = network(**options)
    costs, _ = measure(light, GRAPH, 1)
    assert costs is not None
    heavy = network(**options)
    heavy.weights = 500_000_000
    costs, reason = measure(heavy, GRAPH, 1)
    assert costs is None
    assert "500 MB" in reason
    assert heavy.dropped == 1


def test_masked_graph_that_gives_something_else_is_not_used(
    network: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    timed = network(run_s=1e-3, pixel_s=1e-7)
    timed.wrong_by = 0.01
    costs, reason = measure(timed, GRAPH, 1)
    assert costs is None
    assert "failed its warm-up" in reason
    assert "'logits' differs by 0.01" in reason
    assert timed.dropped == 1
    assert caplog.records


def test_cost_of_another_shape_is_found_and_canvases_of_any_size_are_used(network: Callable[..., Any]) -> None:
    timed = network(run_s=3e-3, pixel_s=1e-8, mask=1.2, switch_s=0.05)
    costs, reason = measure(timed, GRAPH, 1)
    assert reason == ""
    assert costs is not None
    assert abs(costs.switch_s - 0.05) <= 1e-6
    assert costs.ragged is not None
    assert costs.ragged_pixels == float("inf")
    assert abs(float(costs.alone.at(5000)) / timed.seconds(1, 5000) - 1) <= 1e-6  # without it


def test_without_a_masked_graph_only_the_cost_of_shapes_matters(network: Callable[..., Any]) -> None:
    assert measure(network(run_s=1e-3, pixel_s=1e-7), None, 1) == (None, "")
    costs, reason = measure(network(run_s=1e-3, pixel_s=1e-7, switch_s=0.05), None, 1)
    assert reason == ""
    assert costs is not None
    assert costs.ragged is None


def test_fixed_sizes_need_no_measuring(network: Callable[..., Any]) -> None:
    timed = network(run_s=1e-3, pixel_s=1e-7)
    timed.fixed = Geometry(None, 8, 8)
    assert measure(timed, GRAPH, 1) == (None, "the graph fixes its input's sizes")
    assert timed.now == 0

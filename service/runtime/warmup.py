"""Warm-up: the first runs of a network, which allocate, prove that it works, and measure what runs cost on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import onnx_ir as ir

from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.network import Network

log = logging.getLogger(__name__)

Graph = Literal["plain", "ragged"]

_SIDE = 16
"""Pixels; of the smallest images that are timed, where the network takes some so small. What batching saves shows on small ones."""

_SIDES = 4
"""Sides that are timed, each twice the one before; fewer of a slow network."""

_MANY = 8
"""Images that are timed together; fewer of a slow network."""

_RUN_S = 0.01
"""About what one timed run may take, and so how many images are in it."""

_ENOUGH_S = 0.15
"""After this long no further round of timing is begun, and no larger side is tried."""

_ROUNDS = 2

_CROWD = 16
"""Images of a usual batch."""

_PAYS = 1.1
"""How much faster images must be on canvases without waste than alone, for a canvas of their size to be used at all."""

_AGREE = {"float16": 2e-2}
"""Largest relative error of the masked graph's outputs against the plain one's; else 1e-3: float32 gives 1e-6."""


class Disagreement(Exception):
    """The masked graph does not give what the plain one gives; the message says by how much."""


def first_runs(network: Network, height: int, width: int) -> tuple[Sequence[np.ndarray], float]:
    """Run twice: once to allocate, once to measure. Returns the outputs, and seconds of the second run.

    Raises:
        Exception: whatever ONNX Runtime raises; its exceptions have no common root of their own.
    """
    shape = (network.fixed.batch or 1, height, width, network.channels)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    network.run(pixels)
    started = time.perf_counter()
    outputs = network.run(pixels)
    return outputs, max(time.perf_counter() - started, 1e-6)


def measure(network: Network, ragged: ir.Model | None, smallest: int) -> tuple[Costs | None, str]:
    """Measure both graphs, and keep the masked one's session only where it pays.

    Args:
        network: has run.
        ragged: the masked graph; None where there is none.
        smallest: side in pixels of the smallest square image that it takes.

    Returns:
        The costs, None where the graph fixes sizes; and why mixed sizes do not share a run, empty where they do.
    """
    if network.fixed.batch or network.fixed.height or network.fixed.width:
        return None, "the graph fixes its input's sizes"
    stopwatch = _Stopwatch(network, max(_SIDE, smallest))
    switch_s = stopwatch.switch_s()
    if ragged is None:
        return stopwatch.costs(switch_s) if switch_s else None, ""
    side = stopwatch.sides[0]
    alone_s, each_s = stopwatch.saved()
    alone = f"on {network.session.device} an image of {side}×{side} pixels takes {alone_s * 1e3:.2g} ms alone"
    if not switch_s and alone_s < _PAYS * each_s:
        return None, f"sharing a run does not pay: {alone}, {each_s * 1e3:.2g} ms of a batch's time"
    try:
        network.build_ragged(ragged)
        _compare(network, side)
    except Exception as error:  # of ONNX Runtime, without a root of their own; and Disagreement
        # The plain graph is the file's own and serves: a fault of the compiler's must not cost the model.
        log.exception("the masked graph is not used")
        network.drop_ragged()
        return stopwatch.costs(switch_s) if switch_s else None, f"the compiled graph failed its warm-up: {error}"
    costs = stopwatch.costs(switch_s, ragged=True)
    assert costs.ragged is not None
    if not costs.ragged_pixels:
        network.drop_ragged()
        each_s = costs.ragged.of(_CROWD, side**2) / _CROWD
        return None, f"masks cost more than sharing a run saves: {alone}, {each_s * 1e3:.2g} ms of a canvas's time"
    return costs, ""


class _Stopwatch:
    """Times runs of both graphs in turns, so that a slow moment of the machine hits both, and keeps the fastest of each.

    Attributes:
        sides: of the square images that are timed, ascending; two at least.
    """

    def __init__(self, network: Network, side: int) -> None:
        """Time lone images, and so find what sides and how many images can be timed."""
        self._network = network
        self._rng = np.random.default_rng(0)
        self._fastest: dict[tuple[str, int, int], float] = {}  # seconds by graph, images and side
        self._many: dict[int, int] = {}  # images that are timed together, by side
        self.sides: list[int] = []
        started = time.perf_counter()
        for larger in (side << octave for octave in range(_SIDES)):
            if len(self.sides) >= 2 and time.perf_counter() - started > _ENOUGH_S:
                break
            self.sides.append(larger)
            self._many[larger] = int(np.clip(_RUN_S / self._time("plain", 1, larger), 2, _MANY))

    def saved(self) -> tuple[float, float]:
        """Time a small image alone and in batches of the plain graph; seconds of it in both."""
        side = self.sides[0]
        for images in (self._many[side], 2 * self._many[side]):
            self._time("plain", images, side)
        return self._fastest["plain", 1, side], self._run_s("plain") / _CROWD + self._each_s("plain", side)

    def costs(self, switch_s: float, *, ragged: bool = False) -> Costs:
        """Time everything in rounds, and sum up."""
        graphs: tuple[Graph, ...] = ("plain", "ragged") if ragged else ("plain",)
        started = time.perf_counter()
        for number in range(_ROUNDS):
            if number and time.perf_counter() - started > _ENOUGH_S:
                break
            for side in self.sides:
                self._time("plain", 1, side)
                for graph in graphs:
                    self._time(graph, self._many[side], side)
                    if side == self.sides[0]:
                        self._time(graph, 2 * self._many[side], side)
        alone = Curve.through([(side**2, self._fastest["plain", 1, side]) for side in self.sides])
        plain = self._batches("plain")
        if not ragged:
            return Costs(alone, plain, switch_s=switch_s)
        masked = self._batches("ragged")
        paying = float("inf")  # where each new size costs far more than a mask
        if not switch_s:  # between two sides that were timed the curves decide, beyond the last nothing is known
            paying = self.sides[-1] ** 2
            for place, side in enumerate(self.sides):
                if alone.at(side**2) < _PAYS * masked.of(_CROWD, side**2) / _CROWD:
                    paying = side**2 if place else 0
                    break
        return Costs(alone, plain, masked, paying, switch_s)

    def _time(self, graph: Graph, images: int, side: int) -> float:
        """Run twice and keep the fastest second: the first may allocate, and prepares the shape on CUDA."""
        pixels = self._rng.integers(0, 256, (images, side, side, self._network.channels), np.uint8)
        extents = np.tile(np.array([0, 0, side, side], np.int64), (images, 1))
        network = self._network
        run = partial(network.run, pixels) if graph == "plain" else partial(network.run_ragged, pixels, extents)
        run()
        key = (graph, images, side)
        self._fastest[key] = min(self._fastest.get(key, float("inf")), _seconds(run))
        return self._fastest[key]

    def _run_s(self, graph: Graph) -> float:
        """What is left of a run without its images: as it takes when there are as many, twice as many."""
        side = self.sides[0]
        many = self._many[side]
        few_s, more_s = self._fastest[graph, many, side], self._fastest[graph, 2 * many, side]
        return min(max(0.0, 2 * few_s - more_s), few_s)

    def _each_s(self, graph: Graph, side: int) -> float:
        return max(self._fastest[graph, self._many[side], side] - self._run_s(graph), 1e-9) / self._many[side]

    def _batches(self, graph: Graph) -> BatchCost:
        return BatchCost(
            self._run_s(graph), Curve.through([(side**2, self._each_s(graph, side)) for side in self.sides])
        )

    def switch_s(self) -> float:
        """Give how much longer a run takes that follows one of another shape; 0 where that is no more than noise."""
        side = self.sides[0]
        one, other = (np.zeros((1, side, width, self._network.channels), np.uint8) for width in (side, side + 8))
        after_same = after_other = float("inf")
        for _ in range(3):
            self._network.run(other)
            after_other = min(after_other, _seconds(partial(self._network.run, one)))
            after_same = min(after_same, _seconds(partial(self._network.run, one)))
        extra_s = after_other - after_same
        return extra_s if extra_s > 0.5 * after_same else 0.0


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _compare(network: Network, side: int) -> None:
    """Run three sizes on one canvas of noise and alone.

    Raises:
        Disagreement: the answers differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    sizes = [(side, side), (side + 5, side + 17), (2 * side, side + 1)]
    canvas = rng.integers(0, 256, (len(sizes), 2 * side, max(2 * side, side + 17), network.channels), np.uint8)
    extents = np.array([(0, 0, *size) for size in sizes], np.int64)
    together = network.run_ragged(canvas, extents)
    for place, (height, width) in enumerate(sizes):
        alone = network.run(np.ascontiguousarray(canvas[place : place + 1, :height, :width]))
        for name, one, many in zip(network.outputs, alone, together, strict=True):
            if one[0].shape != many[place].shape:
                raise Disagreement(f"output {name!r} is {one[0].shape} alone and {many[place].shape} on a canvas")
            difference = np.abs(one[0].astype(np.float64) - many[place]).max()
            error = float(difference / max(np.abs(one[0]).max(), np.finfo(np.float32).tiny))
            if not error <= _AGREE.get(one.dtype.name, 1e-3):
                raise Disagreement(f"output {name!r} differs by {error:.2g} of its largest value")

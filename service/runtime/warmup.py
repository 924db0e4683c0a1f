"""Warm-up: the first runs of a network, which allocate, prove that it works, and measure what runs cost on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from service.runtime.costs import Cost, Costs
from service.runtime.network import Network

log = logging.getLogger(__name__)

_SIDE = 32
"""Pixels; of the small images that are timed, where the network takes one so small. What batching saves shows on small ones."""

_MANY = 8
"""Images that are timed together; fewer of a slow network."""

_ROUND_S = 0.05
"""About what one round of timing may take, and so the number of images in it."""

_ENOUGH_S = 0.2
"""After this long no further round is begun."""

_ROUNDS = 4

_PAYS = 1.1
"""How much faster a crowd of small images must be on a canvas without waste, for the masked graph to be worth its memory."""

_CROWD = 16
"""Images of that crowd."""

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
    stopwatch.rounds(2, ragged=False)
    plain, switch_s = stopwatch.plain(), stopwatch.switch_s()
    if ragged is None:
        return Costs(plain, None, switch_s), ""
    area = stopwatch.side**2
    alone_s = plain.of(1, area) + switch_s
    together_s = plain.of(_CROWD, _CROWD * area) / _CROWD
    what = f"on {network.session.device} an image of {stopwatch.side}×{stopwatch.side} pixels takes {alone_s * 1e3:.3g} ms alone"
    if alone_s < _PAYS * together_s:
        return Costs(plain, None, switch_s), f"does not pay: {what}, {together_s * 1e3:.3g} ms of a batch's time"
    try:
        network.build_ragged(ragged)
        _compare(network, stopwatch.side)
    except Exception as error:  # of ONNX Runtime, without a root of their own; and Disagreement
        # The plain graph is the file's own and serves: a fault of the compiler's must not cost the model.
        log.exception("the masked graph of %s is not used", network.session.device)
        network.drop_ragged()
        return Costs(plain, None, switch_s), f"the compiled graph failed its warm-up: {error}"
    stopwatch.rounds(_ROUNDS, ragged=True)
    costs = Costs(stopwatch.plain(), stopwatch.ragged(), switch_s)
    assert costs.ragged is not None
    together_s = costs.ragged.of(_CROWD, _CROWD * area) / _CROWD
    if costs.alone(area) < _PAYS * together_s:
        network.drop_ragged()
        return Costs(costs.plain, None, switch_s), f"does not pay: {what}, {together_s * 1e3:.3g} ms of a canvas's time"
    return costs, ""


class _Stopwatch:
    """Times runs of both graphs in turns, so that a slow moment of the machine hits both, and keeps the fastest of each."""

    def __init__(self, network: Network, side: int) -> None:
        self._network = network
        self.side = side
        self._rng = np.random.default_rng(0)
        one = self._pixels(1, side)
        network.run(one)
        self._many = int(np.clip(_ROUND_S / (5 * _seconds(partial(network.run, one))), 2, _MANY))
        self._arrays = (one, self._pixels(self._many, side), self._pixels(self._many, 2 * side))
        self._plain_s = [float("inf")] * 3
        self._ragged_s = [float("inf")] * 3

    def _pixels(self, images: int, side: int) -> np.ndarray:
        return self._rng.integers(0, 256, (images, side, side, self._network.channels), np.uint8)

    def rounds(self, count: int, *, ragged: bool) -> None:
        """Time everything so many times, fewer where that takes long; the first time of a shape does not count."""
        started = time.perf_counter()
        for number in range(1 + count):
            for place, pixels in enumerate(self._arrays):
                self._time(self._plain_s, place, number, partial(self._network.run, pixels))
                if ragged:
                    n, h, w, _ = pixels.shape
                    extents = np.tile(np.array([0, 0, h, w], np.int64), (n, 1))
                    self._time(self._ragged_s, place, number, partial(self._network.run_ragged, pixels, extents))
            if number and time.perf_counter() - started > _ENOUGH_S:
                break

    @staticmethod
    def _time(seconds: list[float], place: int, number: int, run: Callable[[], object]) -> None:
        """Keep the fastest; of runs that follow one of their shape, as the first after another prepares it on CUDA."""
        run()
        if number:
            seconds[place] = min(seconds[place], _seconds(run))

    def plain(self) -> Cost:
        """Give what the plain graph costs."""
        return Cost.fit(self.side, self._many, *self._plain_s)

    def ragged(self) -> Cost:
        """Give what the masked graph costs."""
        return Cost.fit(self.side, self._many, *self._ragged_s)

    def switch_s(self) -> float:
        """Give how much longer a run takes that follows one of another shape; 0 where that is no more than noise."""
        one = self._arrays[0]
        other = self._pixels(1, self.side + 8)
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

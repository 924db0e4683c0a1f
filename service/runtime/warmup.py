"""Warm-up: the first runs of a network, which allocate and prove that it works, and what its runs cost on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from graphs.anysize.alike import Alike
from service.runtime.costs import Costs
from service.runtime.crew import Crew
from service.runtime.network import Network
from service.runtime.stopwatch import Stopwatch

log = logging.getLogger(__name__)

_PAYS = 1.1
"""How much faster images must be on canvases without waste than alone, for a canvas of their size to be used at all."""

_LIGHT_BYTES = 2**24
_WORTH_SIDE = 64
"""A masked graph of more bytes than that is kept only where canvases of this side in pixels pay: it holds the weights once more."""

_AGREE = {"float16": 2e-2}
"""Largest relative error of the masked graph's outputs against the plain one's; else 1e-3: float32 gives 1e-6."""


class Unfit(Exception):
    """Images of different sizes do not share a run; the message says why."""


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


def measure(
    network: Network, ragged: ir.Model | None, smallest: int, crew: Crew | None = None
) -> tuple[Costs | None, str]:
    """Measure both graphs, and keep the masked one's session only where it pays.

    Args:
        network: has run.
        ragged: the masked graph; None where there is none.
        smallest: side in pixels of the smallest square image that it takes.
        crew: what runs small images side by side, and all canvases; None where the network runs everything.

    Returns:
        The costs, None where nothing depends on them; and why different sizes do not share a run though there is a
        masked graph, empty where they do.
    """
    if network.fixed.batch or network.fixed.height or network.fixed.width:
        return None, "the graph fixes its input's sizes"
    runners = [network] if crew is None else crew.networks
    stopwatch = Stopwatch(runners[0], smallest)
    switch_s = stopwatch.switch_s()
    reason = ""
    if ragged is not None:
        try:
            alike = crew.alike if crew is not None else None
            graph = ragged if alike is None else alike.model
            costs = _measure_ragged(runners[0], graph, stopwatch, switch_s, alike)
            for other in runners[1:]:
                other.build_ragged(graph, like=runners[0])
            if crew is not None:
                costs = replace(costs, ragged_pixels=min(costs.ragged_pixels, crew.max_pixels), alike=alike)
            return costs, ""
        except Unfit as unfit:
            runners[0].drop_ragged()
            reason = str(unfit)
    return Costs(stopwatch.alone(), stopwatch.batches("plain"), switch_s=switch_s) if switch_s else None, reason


def _measure_ragged(
    network: Network, graph: ir.Model, stopwatch: Stopwatch, switch_s: float, alike: Alike | None
) -> Costs:
    """Build the masked graph's session, prove it, measure it.

    Raises:
        Unfit: it does not pay, or does not work.
    """
    side = stopwatch.sides[0]
    alone_s, each_s = stopwatch.image_s(side), stopwatch.crowd_s("plain", side)
    alone = f"on {network.session.device} an image of {side}×{side} pixels takes {alone_s * 1e3:.2g} ms alone"
    if not switch_s and alone_s < _PAYS * each_s:
        raise Unfit(f"sharing a run does not pay: {alone}, {each_s * 1e3:.2g} ms of a batch's time")
    try:
        network.build_ragged(graph)
        _compare(network, side, alike)
    except Exception as error:  # of ONNX Runtime, without a root of their own; and Unfit
        # The plain graph is the file's own and serves: a fault of the compiler's must not cost the model.
        log.exception("the masked graph is not used")
        raise Unfit(f"the compiled graph failed its warm-up: {error}") from error

    def pays(side: int) -> bool:
        return stopwatch.image_s(side) >= _PAYS * stopwatch.crowd_s("ragged", side)

    largest = float("inf")  # where each new size costs, it costs far more than a mask
    if not switch_s:
        if not pays(side):
            each_s = stopwatch.crowd_s("ragged", side)
            raise Unfit(f"masks cost more than sharing a run saves: {alone}, {each_s * 1e3:.2g} ms of a canvas's time")
        paying = side
        while pays(stopwatch.sides[-1]):
            paying = stopwatch.sides[-1]
            if not stopwatch.grow():
                break
        if network.ragged_bytes > _LIGHT_BYTES and paying < _WORTH_SIDE:
            megabytes = network.ragged_bytes / 1e6
            raise Unfit(f"canvases pay up to {paying} pixels only, and hold {megabytes:.0f} MB of weights once more")
        largest = stopwatch.sides[-1] ** 2  # up to the first side that does not pay the curves decide
    return Costs(stopwatch.alone(), stopwatch.batches("plain"), stopwatch.batches("ragged"), largest, switch_s)


def _compare(network: Network, side: int, alike: Alike | None) -> None:
    """Run three sizes on one canvas of noise and alone.

    Raises:
        Unfit: the answers differ by more than rounding.
    """
    rng = np.random.default_rng(0)
    if alike is None:
        sizes = [(side, side), (side + 5, side + 17), (2 * side, side + 1)]
    else:
        sizes = [(side, side), (alike.least("height", side), side), (side, alike.least("width", side))]
    canvas = rng.integers(0, 256, (len(sizes), *np.max(sizes, axis=0), network.channels), np.uint8)
    extents = np.array([(0, 0, *size) for size in sizes], np.int64)
    together = network.run_ragged(canvas, extents)
    for place, (height, width) in enumerate(sizes):
        alone = network.run(np.ascontiguousarray(canvas[place : place + 1, :height, :width]))
        for name, one, many in zip(network.outputs, alone, together, strict=True):
            if one[0].shape != many[place].shape:
                raise Unfit(f"output {name!r} is {one[0].shape} alone and {many[place].shape} on a canvas")
            difference = np.abs(one[0].astype(np.float64) - many[place]).max()
            error = float(difference / max(np.abs(one[0]).max(), np.finfo(np.float32).tiny))
            if not error <= _AGREE.get(one.dtype.name, 1e-3):
                raise Unfit(f"output {name!r} differs by {error:.2g} of its largest value")

"""The crew: networks of one thread each, that run small images side by side where that gets more done than all cores on each.

Measured on this machine, not guessed. Each has weights of its own, so only light graphs get one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from graphs.anysize.plan import Plan
from service.runtime.lanes import Lane, Lanes
from service.runtime.network import Network
from service.runtime.stopwatch import Stopwatch
from service.settings import Settings

_MOST = 8
"""Networks."""

_BYTES = 2**25
"""Of their plain graphs together; a masked one doubles that, and ONNX Runtime's own layouts of the weights."""

_PAYS = 1.1
"""How many times as much must get done."""

_RUNS = 8
"""Images that each runs while it is measured, one after the other."""

_REPEATS = 5
"""The fastest counts: what else the machine does makes single ones longer."""


@dataclass(frozen=True)
class Crew:
    """Networks side by side.

    Attributes:
        networks: two or more, as many as there are cores where they are light enough.
        max_pixels: of images that get more done so.
    """

    networks: Sequence[Network]
    max_pixels: int

    def lanes(self, name: str) -> Lanes:
        """Give each a lane."""
        return Lanes([Lane(network.run, network.run_ragged) for network in self.networks], self.max_pixels, name)


def make_crew(network: Network, plan: Plan, settings: Settings, smallest: int) -> Crew | None:
    """Build and measure them. Returns None where they do not pay, or cannot be had.

    Args:
        network: with all cores; has run.
        plan: it is made of.
        settings: as it was made with.
        smallest: side in pixels of the smallest square image that it takes.
    """
    fixed = network.fixed
    if network.session.provider != "cpu" or fixed.batch or fixed.height or fixed.width:
        return None
    count = min(settings.threads or len(os.sched_getaffinity(0)), _MOST, _BYTES // network.plain_bytes)
    if count < 2:
        return None
    single = settings.model_copy(update={"threads": 1})
    networks = [Network(plan, single, "cpu") for _ in range(count)]
    stopwatch = Stopwatch(network, smallest)
    paying = 0
    with ThreadPoolExecutor(count) as threads:
        for side in stopwatch.growing():
            if stopwatch.image_s(side) < _PAYS * _image_s(networks, threads, side):
                break
            paying = side
    return Crew(networks, paying**2) if paying else None


def _image_s(networks: Sequence[Network], threads: Executor, side: int) -> float:
    """Give the seconds of one image, where each network runs them one by one."""
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, networks[0].channels), np.uint8)

    def run(network: Network) -> None:
        for _ in range(_RUNS):
            network.run(image)

    fastest = math.inf
    for _ in range(_REPEATS):
        started = time.perf_counter()
        list(threads.map(run, networks))
        fastest = min(fastest, time.perf_counter() - started)
    return fastest / (_RUNS * len(networks))

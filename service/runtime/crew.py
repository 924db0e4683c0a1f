"""The crew: networks of one thread each, that run small images side by side where that gets more done than all cores on each.

Measured on this machine, not guessed. Each has weights of its own, so only light graphs get one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from graphs.anysize.alike import Alike, make_alike
from graphs.anysize.plan import Plan
from service.cores import available_cores
from service.runtime.lanes import Lane, Lanes
from service.runtime.network import Network
from service.settings import Settings

_MOST = 8
"""Networks."""

_BYTES = 2**25
"""Of their plain graphs together; a masked one doubles that, and ONNX Runtime's own layouts of the weights."""

_PAYS = 1.1
"""How many times as much must get done."""

_SIDES = (128, 64, 32, 16)
"""Pixels, of the images that are timed: where large ones get more done, small ones do. Still larger ones have all cores."""

_RUN_S = 0.002
_MANY = 8
"""Each network runs for about so long in a pair, and so many images at most."""

_PAIRS = 11
"""At most; odd."""

_CLEARLY = (1.25, 1.5)
"""Times what is asked for. On two cores the gain of small networks is 1.5 to 2.5, 1.9 mostly.

A loss, however clear, counts once: other work takes a core from those side by side, and of 32 models four were judged by that."""

_COARSE = 4
"""Pixels: the stride of the levels that images on one canvas must fill. Of 2000 images of 8 to 64 pixels, nine are alike then."""

_TRIES = 20
"""One is enough: what else the machine does can only make them longer."""


@dataclass(frozen=True)
class Crew:
    """Networks side by side.

    Attributes:
        networks: two or more, as many as there are cores where they are light enough.
        max_pixels: of images that get more done so.
        alike: the masked graph for their canvases; None where there is none that is lighter than the plan's.
    """

    networks: Sequence[Network]
    max_pixels: int
    alike: Alike | None

    def lanes(self, name: str) -> Lanes:
        """Give each a lane; all graphs are built."""
        for network in self.networks:
            network.forget()
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
    count = min(settings.threads or available_cores(), _MOST, _BYTES // network.plain_bytes)
    if count < 2:
        return None
    single = settings.model_copy(update={"threads": 1})
    networks = [Network(plan, single, "cpu", like=network) for _ in range(count)]
    with ThreadPoolExecutor(count) as threads:
        for side in (max(side, smallest) for side in _SIDES):
            if _pays(network, networks, threads, side):
                return Crew(networks, side**2, None if plan.ragged is None else make_alike(plan.plain, _COARSE))
    return None


def _pays(network: Network, networks: Sequence[Network], threads: Executor, side: int) -> bool:
    """Whether enough more gets done side by side than one by one with all cores, by the median of pairs.

    What is compared runs one right after the other and for about as long: so other work on the machine hits both. Once most
    of the pairs have said the same the others cannot change it, and are not run; a clear gain counts twice or thrice.

    Args:
        network: with all cores.
        networks: of one thread each.
        threads: as many.
        side: of the images in pixels.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, network.channels), np.uint8)

    def run(network: Network, images: int) -> None:
        for _ in range(images):
            network.run(image)

    def clock(*work: tuple[Network, int]) -> float:
        started = time.perf_counter()
        list(threads.map(run, *zip(*work, strict=True)))
        return time.perf_counter() - started

    clock(*((one, 1) for one in networks))  # the first runs of a size allocate
    images = int(np.clip(_RUN_S / clock((network, 1)), 1, _MANY))
    votes = [0, 0]
    while max(votes) <= _PAIRS // 2:
        alone_s = clock((network, images * len(networks)))
        gain = alone_s / clock(*((one, images) for one in networks)) / _PAYS
        votes[gain >= 1] += 1 + sum(gain >= clear for clear in _CLEARLY)
    return votes[True] > votes[False]

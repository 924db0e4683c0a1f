"""The two halves of a model that is cut at its last reduction over space: the trunk, which runs on tiles, and the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from graphs.anysize.plan import EXTENTS, OWNED, TrunkGeometry
from graphs.anysize.states import State
from graphs.front import PIXELS
from service.runtime.session import Provider, Session
from service.runtime.tiling import Tiling
from service.runtime.wire import to_bytes
from service.settings import Settings

Trunk = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""Pixels uint8 (N,H,W,C), extents and owned int64 (N,4) in; the states by name, each with N as its first axis, out."""

Head = Callable[[Mapping[str, np.ndarray], np.ndarray], Sequence[np.ndarray]]
"""Merged states and extents (1,4) in; the model's outputs, each with 1 as its first axis, out."""


class TileGraphs(NamedTuple):
    """What runs tiles.

    Attributes:
        trunk: runs one batch of tiles.
        head: runs one image's merged states.
        states: what the trunk gives.
        release: gives back the memory that runs have needed; hundreds of megabytes, which an arena keeps for ever.
    """

    trunk: Trunk
    head: Head
    states: Sequence[State]
    release: Callable[[], None]


def load_tile_graphs(tiling: Tiling, geometry: TrunkGeometry, settings: Settings, provider: Provider) -> TileGraphs:
    """Build both sessions; the head's on the CPU, which is quicker for one small run than the way to a device.

    Raises:
        ProviderError: the trunk would run elsewhere than asked for.
        ValueError: ONNX Runtime refuses a graph; says why.
    """
    plan = tiling.graphs()
    data = to_bytes(plan.trunk)
    trunk = Session(data, provider=provider, device_id=settings.device_id, threads=settings.threads)
    pixels_in = next(value for value in plan.trunk.graph.inputs if value.name == PIXELS)
    assert pixels_in.shape is not None  # the front has made it
    channels = pixels_in.shape[3]
    assert isinstance(channels, int)
    side = max(*geometry.alignment, geometry.min_height, geometry.min_width)
    least = np.zeros((1, side, side, channels), np.uint8)  # (N,H,W,C)
    head = Session(to_bytes(plan.head), provider="cpu", threads=1)
    states = plan.states
    tiling.forget()

    def run_trunk(pixels: np.ndarray, extents: np.ndarray, owned: np.ndarray) -> Mapping[str, np.ndarray]:
        feeds = {PIXELS: pixels, EXTENTS: extents, OWNED: owned}
        return dict(zip(trunk.outputs, trunk.run(feeds), strict=True))

    def run_head(states: Mapping[str, np.ndarray], extents: np.ndarray) -> Sequence[np.ndarray]:
        given = {**states, EXTENTS: extents}
        return head.run({name: given[name] for name in head.inputs})

    def release() -> None:
        place = np.array([(0, 0, side, side)], np.int64)
        trunk.run({PIXELS: least, EXTENTS: place, OWNED: place}, shrink=True)

    return TileGraphs(run_trunk, run_head, states, release)

"""Rows made by hand, and tiles over a trunk in NumPy for as long as a test takes. No sleeps, no sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from service.codecs.header import ImageHeader
from service.codecs.rows import Rows
from service.runtime.admission import Admission
from service.runtime.tiles import Limits, Tiles
from tests.pictures import stored_as
from tests.service.runtime.box_trunk import GEOMETRY, BoxTrunk

LATER = 1e9
LIMITS = Limits(canvas_pixels=4096, batch_pixels=10_000, strip_pixels=100_000)


def rows_of(image: np.ndarray, rng: np.random.Generator, orientation: int = 1) -> Rows:
    """The image in bands of any height, as a file of this orientation stores it."""
    stored = stored_as(image, orientation)
    cuts = np.sort(rng.integers(0, len(stored) + 1, 6))
    bands = (band for band in np.split(stored, cuts) if len(band))
    return Rows(ImageHeader("PNG", image.shape[1], image.shape[0], orientation), image.shape[2], bands)


def with_tiles(
    test: Callable[[Tiles, BoxTrunk], Coroutine[Any, Any, None]],
    *,
    gated: bool = False,
    limits: Limits = LIMITS,
    clock: Callable[[], float] | None = None,
) -> BoxTrunk:
    trunk = BoxTrunk(gated=gated)
    given = {} if clock is None else {"clock": clock}
    admission = Admission(1e6, max_waiting=10)
    tiles = Tiles(trunk.load, GEOMETRY, limits, name="test", admission=admission, **given)
    tiles.start()
    try:
        asyncio.run(test(tiles, trunk))
    finally:
        if trunk.gate is not None:
            trunk.gate.release(10_000)
        tiles.stop()
    assert not tiles.alive
    assert tiles.waiting == 0
    return trunk


async def has_begun(trunk: BoxTrunk) -> None:
    assert await asyncio.to_thread(trunk.entered.acquire, timeout=20)

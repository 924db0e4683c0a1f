"""The features of an image too large for one canvas, put together from those of its tiles: each gives the cells that it owns."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from graphs.anysize.domains import Cells
from graphs.anysize.plan import EXTENTS, TrunkGeometry
from graphs.front import PIXELS
from service.codecs.rows import Rows
from service.errors import DeadlineExceeded, PayloadTooLarge
from service.runtime import heap
from service.runtime.grid import TooLarge, cut
from service.runtime.session import Session
from service.runtime.tile_batches import tile_batches
from service.settings import Settings

_NICE = 10
"""Below the rest of the process, as the queue of large images is (tiles.py)."""


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere the whole process would be meant
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Mosaic:
    """One model's trunk for tiles, and the one thread that runs it.

    Attributes:
        thread: where `features` is to be called.
    """

    def __init__(
        self,
        load: Callable[[], Session],
        geometry: TrunkGeometry,
        sides: tuple[Cells, Cells],
        channels: int,
        settings: Settings,
    ) -> None:
        """Prepare.

        Args:
            load: builds the trunk's session, PIXELS and EXTENTS in, features of each canvas out; called when the first image
                comes, from the thread.
            geometry: of the trunk.
            sides: rows and columns of the features.
            channels: C.
            settings: for limits.
        """
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="mosaic", initializer=_step_back)
        self._load = load
        self._session: Session | None = None
        self._geometry, self._sides, self._channels, self._settings = geometry, sides, channels, settings

    def features(self, rows: Rows, deadline: float, gone: threading.Event) -> np.ndarray:
        """Run an image tile by tile.

        Args:
            rows: of the image.
            deadline: on the clock of `time.monotonic`; looked at between batches of tiles.
            gone: set when nobody waits any more.

        Returns:
            (C,h,w), float32: what the trunk would give for the whole image.

        Raises:
            PayloadTooLarge: 413; more features than max_tensor_elements, or no tile is small enough.
            DeadlineExceeded: 504. InvalidImage: 422; its rows are damaged.
        """
        header, settings = rows.header, self._settings
        cells = tuple(
            side.level.cells(length) for side, length in zip(self._sides, (header.height, header.width), strict=True)
        )
        if self._channels * cells[0] * cells[1] > settings.max_tensor_elements:
            raise PayloadTooLarge(
                f"expected features of at most {settings.max_tensor_elements} numbers (max_tensor_elements), an image of "
                f"{header.width}x{header.height} has {self._channels}×{cells[0]}×{cells[1]}"
            )
        try:
            grid = cut(
                header.height,
                header.width,
                self._geometry,
                max_canvas=settings.max_canvas_pixels,
                max_strip=settings.max_pixels,
                stored_as_columns=header.orientation >= 5,
            )
        except TooLarge as error:
            raise PayloadTooLarge(str(error)) from error
        if self._session is None:
            self._session = self._load()
            heap.trim()
        session = self._session
        out = np.empty((self._channels, *cells), np.float32)
        for batch in tile_batches(rows, grid, settings.max_batch_pixels):
            if time.monotonic() > deadline or gone.is_set():
                raise DeadlineExceeded("the time limit passed before all tiles were run")
            feeds = {PIXELS: batch.pixels, EXTENTS: batch.extents}
            (found,) = session.run(
                feeds, shrink=True
            )  # (N,C,h',w'); the arena would keep a tile's hundreds of megabytes
            for tile in range(batch.tiles):
                origin, owned = batch.extents[tile], batch.owned[tile]
                (top, bottom), (left, right) = (
                    _own(side, owned[axis], owned[2 + axis], length, count)
                    for axis, (side, length, count) in enumerate(
                        zip(self._sides, (header.height, header.width), cells, strict=True)
                    )
                )
                y, x = (origin[axis] // side.level.stride for axis, side in enumerate(self._sides))
                out[:, top:bottom, left:right] = found[tile, :, top - y : bottom - y, left - x : right - x]
        return out

    def retire(self) -> None:
        """Let the thread end after what it runs; does not block."""
        self.thread.shutdown(wait=False)

    def stop(self) -> None:
        """End the thread after what it runs; blocks."""
        self.thread.shutdown()


def _own(side: Cells, start: int, stop: int, length: int, count: int) -> tuple[int, int]:
    """The cells that a tile owns along a side, half open: those that begin in its pixels; the last tile has all that are left."""
    stride = side.level.stride
    return -(-int(start) // stride), count if stop >= length else min(count, -(-int(stop) // stride))

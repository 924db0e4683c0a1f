"""A model's features, the map before its pooling head, of any image; and the head by itself, which makes outputs of any map.

Both have sessions of their own, made when they are first asked for, in a thread: the trunk's holds nearly all of the weights once
more (they cannot be shared between sessions, network.py says why), the head's a classifier's. A model that is only asked for
labels pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.anysize.cut import FEATURES, Cut, cut_features, trunk_of_tiles
from graphs.anysize.domains import Cells
from graphs.anysize.features import FeaturesError
from graphs.anysize.plan import Plan
from graphs.card import ModelCard
from graphs.front import Geometry, attach_front
from service.codecs.rows import Rows
from service.errors import InternalError, InvalidParameter, PayloadTooLarge, ServiceError
from service.runtime import heap
from service.runtime.batcher import Answer, Batcher
from service.runtime.canvas import Tally
from service.runtime.deadline import answered_by
from service.runtime.grouping import Grouping
from service.runtime.head import Head
from service.runtime.mosaic import Mosaic
from service.runtime.network import Network
from service.runtime.session import Provider, Session
from service.runtime.source import Source
from service.runtime.wire import to_bytes
from service.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grid:
    """Where the features' cells lie in the image.

    Attributes:
        channels: C.
        rows: cells along the height: cell j sees the pixels `first` + j·stride to `last` + j·stride.
        columns: the same along the width.
    """

    channels: int
    rows: Cells
    columns: Cells

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Cells of an image, (h, w)."""
        return self.rows.level.cells(height), self.columns.level.cells(width)


@dataclass(frozen=True)
class _Ready:
    """What is there once it was asked for."""

    grid: Grid
    batcher: Batcher
    head: Head
    only_whole: str  # why the head takes no map of one cell; empty where it does
    mosaic: Mosaic | None  # for tiles; None where they do not do


class Features:
    """The features and the head of one model."""

    def __init__(
        self, source: Source, graph: ir.Model, card: ModelCard, settings: Settings, provider: Provider, *, name: str
    ) -> None:
        """Check what the card says of the features; nothing is made yet.

        Args:
            source: of the model, to be read again when sessions are made.
            graph: as read, nothing put before it.
            card: the model's.
            settings: for threads and budgets.
            provider: where it runs.
            name: of the model, for messages.

        Raises:
            FeaturesError: the card names features that are none.
        """
        if card.features is not None:
            cut_features(graph, card)
        self._source, self._card, self._settings, self._provider, self._name = source, card, settings, provider, name
        self._retired = False
        self._building: asyncio.Task[None] | None = None
        self._ready: _Ready | None = None
        self._refusal: str | None = None

    async def ready(self, deadline: float) -> Grid:
        """Make the sessions, unless they are there.

        Args:
            deadline: on the clock of `time.monotonic`; who does not wait so long does not end it.

        Raises:
            InvalidParameter: 422; the network has no features that can be told from its head.
            DeadlineExceeded: 504. InternalError: 500.
        """
        if self._ready is None and self._refusal is None:
            if self._building is None or self._building.done():  # once for all who wait for it
                self._building = asyncio.ensure_future(asyncio.to_thread(self.make))
            async with answered_by(deadline, "the features' session was made"):
                await asyncio.shield(self._building)
        if self._refusal is not None:
            raise InvalidParameter(self._refusal)
        if self._ready is None:
            raise InternalError
        return self._ready.grid

    def check_cells(self) -> None:
        """Refuse what needs the head of one cell, where it takes maps of its own size only.

        Raises:
            InvalidParameter: 422.
        """
        assert self._ready is not None
        if self._ready.only_whole:
            raise InvalidParameter(
                f"model {self._name} has no map of cells: its head does not take a map of 1×1, {self._ready.only_whole}"
            )

    async def infer(self, image: np.ndarray, deadline: float) -> Answer:
        """Run the trunk on one image; its one output is the features (C,h,w), float32.

        Args:
            image: uint8 (H,W,C), of a size that the model accepts.
            deadline: on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: 504. InternalError: 500. Overloaded: 429.
        """
        assert self._ready is not None  # the caller has waited for it
        async with answered_by(deadline, "the features were there"):
            return await self._ready.batcher.submit(image, deadline)

    async def infer_tiles(self, rows: Rows, deadline: float) -> Answer:
        """Run the trunk on an image that is too large for one canvas; its one output is the features (C,h,w), float32.

        Args:
            rows: of the image, of a size that the model accepts.
            deadline: on the clock of `time.monotonic`.

        Raises:
            PayloadTooLarge: 413. InvalidImage: 422. DeadlineExceeded: 504. InternalError: 500.
        """
        assert self._ready is not None
        mosaic = self._ready.mosaic
        if mosaic is None:
            raise PayloadTooLarge(
                f"expected at most {self._settings.max_canvas_pixels} pixels (max_canvas_pixels), the image has "
                f"{rows.header.width}x{rows.header.height}, and the features of model {self._name} are not made in tiles"
            )
        gone, asked_at = threading.Event(), time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with answered_by(deadline, "all tiles were run"):
                maps = await loop.run_in_executor(mosaic.thread, mosaic.features, rows, deadline, gone)
        except ServiceError:
            raise
        except Exception as error:
            log.exception("model %s: no features of tiles", self._name)
            raise InternalError from error
        finally:
            gone.set()
        return Answer([maps], 0.0, time.monotonic() - asked_at, 1)

    def head(self, maps: np.ndarray, deadline: float) -> Mapping[str, np.ndarray]:
        """Run the head; blocks. Any thread, one at a time.

        Args:
            maps: features float32 (N,C,h,w), h and w at least 1.
            deadline: looked at between runs.

        Returns:
            The network's outputs by name, N each; and cut.WEIGHTS (N,h·w) where it pools by attention.

        Raises:
            DeadlineExceeded: 504.
        """
        assert self._ready is not None
        return self._ready.head.run(maps, deadline)

    @property
    def weighted(self) -> bool:
        """Whether the head pools by attention, so that `head` gives cut.WEIGHTS."""
        return self._ready is not None and self._ready.head.weighted

    @property
    def alive(self) -> bool:
        """Whether the trunk's thread, if there is one, is there to answer."""
        return self._ready is None or self._ready.batcher.alive

    def tallies(self) -> list[Tally]:
        """What has run since the start, but for tiles."""
        return [] if self._ready is None else [self._ready.batcher.tally]

    def retire(self) -> None:
        """Let the threads, if there are any, finish what is queued and end; does not block."""
        self._retired = True
        if self._ready is not None:
            self._ready.batcher.retire()
            if self._ready.mosaic is not None:
                self._ready.mosaic.retire()

    def stop(self) -> None:
        """Finish what is queued, then end the threads; blocks."""
        if self._ready is not None:
            self._ready.batcher.stop()
            if self._ready.mosaic is not None:
                self._ready.mosaic.stop()

    @property
    def made(self) -> bool:
        """Whether the sessions are there."""
        return self._ready is not None

    def make(self) -> None:
        """Make the sessions; blocks. Leaves `_ready` or `_refusal` behind, or neither where it fails."""
        try:
            ready = self._make()
        except FeaturesError as error:
            self._refusal = f"model {self._name} has no features that could be told from its head: {error}"
        except Exception:  # the file's, onnx-ir's and ONNX Runtime's alike
            log.exception("model %s: no session for its features", self._name)
        else:
            ready.batcher.start()
            self._ready = ready
            if self._retired:  # meanwhile: nobody waits for it any more
                self.retire()

    def _cut(self) -> tuple[Cut, Geometry]:
        """Read the file again, and cut it."""
        graph, _ = self._source.read()
        fixed = attach_front(graph, self._card)
        return cut_features(graph, self._card), fixed

    def _session(self, graph: ir.Model) -> Session:
        settings = self._settings
        data = to_bytes(graph)
        return Session(data, provider=self._provider, device_id=settings.device_id, threads=settings.threads)

    def _tile_session(self) -> Session:
        return self._session(trunk_of_tiles(self._cut()[0].trunk, self._card)[0])

    def _make(self) -> _Ready:
        started = time.monotonic()
        cut, fixed = self._cut()
        if cut.channels is None:
            raise FeaturesError(f"the number of channels of {cut.value!r} is not known")
        settings = self._settings
        network = Network(Plan(cut.trunk, None, None, (), tuple), settings, self._provider)
        head = self._session(cut.head)
        mosaic = None
        try:
            geometry = trunk_of_tiles(cut.trunk, self._card)[1]
        except FeaturesError as error:
            log.info("model %s: its features are not made in tiles: %s", self._name, error)
        else:
            mosaic = Mosaic(self._tile_session, geometry, (cut.rows, cut.columns), cut.channels, settings)
        lone = np.zeros((fixed.batch or 1, cut.channels, 1, 1), np.float32)
        only_whole = ""
        try:
            head.run({FEATURES: lone})
        except Exception as error:  # noqa: BLE001  # of ONNX Runtime, without a root of their own: descriptors need no head
            log.warning("model %s: its head does not take a map of 1×1: %s", self._name, error)
            only_whole = "as one with a layer behind a flattened map of a fixed size"
        most = fixed.batch or self._source.max_batch
        batcher = Batcher(
            network.run,
            name=f"{self._name}/features",
            grouping=Grouping(None, max_pixels=settings.max_batch_pixels, max_images=most),
            max_waiting=settings.max_queue * settings.max_images,
        )
        grid = Grid(cut.channels, cut.rows, cut.columns)
        whole = Head(head, batch=fixed.batch, weighted=cut.weighted)
        del cut  # and with it the weights that the sessions have copied
        heap.trim()
        log.info("model %s: sessions of its features ready in %.2f s", self._name, time.monotonic() - started)
        return _Ready(grid, batcher, whole, only_whole, mosaic)

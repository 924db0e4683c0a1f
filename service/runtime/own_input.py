"""A network's own input: numbers as its file takes them, with nothing put before it. For who has done the preprocessing himself.

The graph that takes pixels cannot take them, so this needs a session of its own, and that holds the weights once more. So it is
made when such numbers first come, in a thread; but for a model that runs on the event loop, whose weights are few, at load.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphs.card import ModelCard
from graphs.front import Geometry, image_input
from service.errors import InternalError, InvalidTensor
from service.runtime.batcher import Answer, Batcher
from service.runtime.canvas import Tally
from service.runtime.deadline import answered_by
from service.runtime.grouping import Grouping
from service.runtime.handover import Shortness
from service.runtime.lanes import Run
from service.runtime.session import Provider, Session
from service.runtime.source import Source
from service.runtime.tick import Tick
from service.runtime.wire import to_bytes
from service.settings import Settings

log = logging.getLogger(__name__)

_DTYPES: dict[ir.DataType | None, str] = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}


class OwnInput:
    """One model's own input.

    Attributes:
        dtype: of its numbers.
        layout: of its axes, `NCHW` or `NHWC`.
        name: in the graph.
    """

    def __init__(
        self, source: Source, graph: ir.Model, card: ModelCard, settings: Settings, provider: Provider, *, name: str
    ) -> None:
        """Read what the graph says of its input; no session is made yet.

        Args:
            source: of the model, to be read again when a session is made.
            graph: as read, nothing put before it.
            card: the model's.
            settings: for threads and budgets.
            provider: where it runs.
            name: of the model, for messages.

        Raises:
            FrontError: it has no image input.
        """
        value = image_input(graph, card)
        assert value.shape is not None  # image_input has checked it
        self.dtype = np.dtype(_DTYPES.get(value.dtype, "uint8"))  # the front refuses any other
        self.layout = card.preprocessing.layout
        self._channels = card.preprocessing.channel_count
        sizes = [size if isinstance(size, int) else None for size in value.shape]
        self.fixed = Geometry(sizes[0], *(sizes[2:] if self.layout == "NCHW" else sizes[1:3]))
        self._model, self._source, self.name = name, source, str(value.name)
        self._settings, self._provider = settings, provider
        self._retired = False
        self._building: asyncio.Task[None] | None = None
        self._batcher: Batcher | None = None
        self._short: Shortness | None = None
        self._tick: Tick | None = None

    def axes_of(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int, int]:
        """Say how many images numbers are, and of what height and width in pixels.

        Args:
            shape: (C,H,W) or (N,C,H,W), or with the channels last, as `layout` says.
            dtype: of the numbers.

        Raises:
            InvalidTensor: 422; another dtype, rank or number of channels.
        """
        if dtype != self.dtype:
            raise InvalidTensor(
                f"dtype: expected {self.dtype} (what model {self._model} takes) or uint8 (pixels), got {dtype}"
            )
        channels_first = self.layout == "NCHW"
        channels = shape[-3 if channels_first else -1] if len(shape) in {3, 4} else None
        if channels != self._channels or 0 in shape:
            one = f"{self._channels},H,W" if channels_first else f"H,W,{self._channels}"
            raise InvalidTensor(f"shape: expected ({one}) or (N,{one}), none of them 0, got {shape}")
        height, width = shape[-2:] if channels_first else shape[-3:-1]
        return shape[0] if len(shape) == 4 else 1, height, width

    def run_at_once(
        self, graph: ir.Model, short: Shortness, finish: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
    ) -> None:
        """Make a session for the event loop now: the model was found to be short enough for it.

        Args:
            graph: as read, nothing put before it; at load it is still there.
            short: as found.
            finish: applied to a run's outputs.

        Raises:
            ValueError: ONNX Runtime refuses the graph. ProviderError: it would not run where it must.
        """
        run = self._run(self._session(1, graph))
        self._short = short
        self._tick = Tick(
            lambda carried: finish(run(carried)),
            name=self._model,
            cost=lambda shape: short.image_s(shape[0] * shape[1]),
            max_batch=self.fixed.batch or self._source.max_batch,
            max_waiting=self._settings.max_queue * self._settings.max_images,
        )

    def tick_for(self, height: int, width: int) -> Tick | None:
        """Give what runs images of a size on the event loop; None where that would hold it too long."""
        return self._tick if self._short is not None and height * width <= self._short.max_pixels else None

    async def infer(self, carried: np.ndarray, deadline: float) -> Answer:
        """Run one image; its outputs are in the order of the pixels' session.

        Args:
            carried: its numbers as they lie in memory, uint8 (H,W,bytes): queues go by height and width only.
            deadline: on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: 504. InternalError: 500. Overloaded: 429.
        """
        tick = self.tick_for(*carried.shape[:2])
        if tick is not None:
            return await tick.submit(carried, deadline)
        async with answered_by(deadline):
            if self._batcher is None:
                await self._build()
            assert self._batcher is not None
            return await self._batcher.submit(carried, deadline)

    @property
    def made(self) -> bool:
        """Whether the owner thread and its session are there."""
        return self._batcher is not None

    async def _build(self) -> None:
        """Make the session of the owner thread, once for all who wait for it; who leaves does not end it."""
        if self._building is None or self._building.done():
            self._building = asyncio.ensure_future(asyncio.to_thread(self.make))
        await asyncio.shield(self._building)

    def make(self) -> None:
        """Make the session of the owner thread; blocks.

        Raises:
            InternalError: 500; it cannot be made.
        """
        started = time.monotonic()
        try:
            session = self._session(self._settings.threads)
        except Exception as error:  # the file's, onnx-ir's and ONNX Runtime's alike
            log.exception("model %s: no session for its own input", self._model)
            raise InternalError from error
        batcher = Batcher(
            self._run(session),
            name=f"{self._model}/own",
            grouping=Grouping(
                None,
                max_pixels=self._settings.max_batch_pixels,
                max_images=self.fixed.batch or self._source.max_batch,
            ),
            max_waiting=self._settings.max_queue * self._settings.max_images,
        )
        batcher.start()
        self._batcher = batcher
        if self._retired:  # meanwhile: nobody waits for it any more
            batcher.retire()
        log.info("model %s: session for its own input ready in %.2f s", self._model, time.monotonic() - started)

    def _session(self, threads: int, graph: ir.Model | None = None) -> Session:
        data = to_bytes(graph or self._source.read()[0])
        return Session(data, provider=self._provider, device_id=self._settings.device_id, threads=threads)

    def _run(self, session: Session) -> Run:
        """Give what runs what queues have carried, uint8 (N,H,W,bytes). It does not hold this: what holds it is held by this."""
        name, dtype, batch = self.name, self.dtype, self.fixed.batch or 0
        channels, channels_first = self._channels, self.layout == "NCHW"
        max_pixels = self._settings.max_batch_pixels

        def run(carried: np.ndarray) -> Sequence[np.ndarray]:
            count, height, width = carried.shape[:3]
            axes = (channels, height, width) if channels_first else (height, width, channels)
            x = np.ascontiguousarray(carried).reshape(-1).view(dtype).reshape(count, *axes)  # (N,C,H,W) or (N,H,W,C)
            if not x.flags.aligned:  # a part of a body
                x = x.copy()
            missing = batch - count
            if missing > 0:  # as with pixels: filled up with the last image, and dropped again
                x = np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
            huge = math.prod(carried.shape[:3]) > max_pixels
            return [output[:count] for output in session.run({name: x}, shrink=huge)]

        return run

    def tallies(self) -> list[Tally]:
        """What has run since the start."""
        return [queue.tally for queue in (self._tick, self._batcher) if queue is not None]

    def retire(self) -> None:
        """Let the thread, if there is one, finish what is queued and end; does not block."""
        self._retired = True
        if self._batcher is not None:
            self._batcher.retire()

    def stop(self) -> None:
        """Finish what is queued, then end the thread, if there is one; blocks."""
        if self._batcher is not None:
            self._batcher.stop()

"""A network as it runs: the sessions of its plan's graphs. What runs when is the batcher's business, and what it costs warmup's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphs.anysize.plan import EXTENTS, Plan
from graphs.front import PIXELS, Geometry
from service.runtime.session import Provider, Session
from service.runtime.wire import to_bytes
from service.settings import Settings

_KEPT_BYTES = 2**25
"""A larger graph's bytes are not kept for networks like it."""


class Network:
    """The sessions of one model. For one thread at a time.

    Attributes:
        fixed: sizes that the graph fixes.
        channels: of the pixels, 1 or 3.
        session: of the plain graph.
        outputs: names of its outputs, in order.
        plain_bytes: size of the plain graph.
        ragged_bytes: size of the masked graph; 0 where there is no session of it.
    """

    def __init__(self, plan: Plan, settings: Settings, provider: Provider, *, like: Network | None = None) -> None:
        """Build the session of the plain graph; the masked one only when it is asked for.

        Args:
            plan: of the model.
            settings: for threads and budgets.
            provider: where it runs.
            like: another one of the same plan: to write a graph as bytes takes longer than to make a session of them.

        Raises:
            ValueError: ONNX Runtime refuses the graph.
            ProviderError: it would not run where it must.
        """
        self._settings, self._provider = settings, provider
        self.fixed, self.channels = _pixels_of(plan.plain)
        self._plain_data: bytes | None = None
        self._ragged_data: bytes | None = None
        data = (None if like is None else like._plain_data) or to_bytes(plan.plain)
        self.session = self._build(data)
        if like is None and len(data) <= _KEPT_BYTES:
            self._plain_data = data
        self.plain_bytes = len(data)
        self.outputs: Sequence[str] = self.session.outputs
        self._ragged: Session | None = None
        self.ragged_bytes = 0

    def _build(self, data: bytes) -> Session:
        settings = self._settings
        return Session(data, provider=self._provider, device_id=settings.device_id, threads=settings.threads)

    def build_ragged(self, graph: ir.Model, *, like: Network | None = None) -> None:
        """Build the session of the masked graph. It holds the weights once more.

        They cannot be had once: on the CPU, ONNX Runtime lays them out for its convolutions within each session. With the layout
        off, initializers shared by add_initializer took 10 MB instead of 54 for a second ResNet-18, and runs 58 ms instead of 36.

        Args:
            graph: masked.
            like: another network, that has built it.

        Raises:
            ValueError: ONNX Runtime refuses the graph.
            ProviderError: it would not run where it must.
        """
        data = (None if like is None else like._ragged_data) or to_bytes(graph)
        self._ragged = self._build(data)
        self._ragged_data = data if len(data) <= _KEPT_BYTES else None
        self.ragged_bytes = len(data)

    def drop_ragged(self) -> None:
        """Give its memory back; where it was measured to be of no use."""
        self._ragged = self._ragged_data = None
        self.ragged_bytes = 0

    def forget(self) -> None:
        """Give back the bytes that were kept for networks like this one; once all are made."""
        self._plain_data = self._ragged_data = None

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run images of one size.

        Args:
            pixels: uint8 (N,H,W,C).

        Returns:
            The outputs in the order of `outputs`, N each.
        """
        count = len(pixels)
        missing = (self.fixed.batch or 0) - count
        if missing > 0:  # the graph fixes its batch: fill it up with the last image, and drop what that gives
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])  # (N,H,W,C)
        return [output[:count] for output in self.session.run({PIXELS: pixels}, shrink=self._is_huge(pixels))]

    def run_ragged(self, pixels: np.ndarray, extents: np.ndarray) -> list[np.ndarray]:
        """Run images of different sizes on a canvas.

        Args:
            pixels: uint8 (N,H,W,C), anything around the images.
            extents: int64 (N,4): 0, 0, height, width of each.

        Returns:
            The outputs in the order of `outputs`, N each.
        """
        assert self._ragged is not None  # the batcher is told whether it is there
        feeds = {PIXELS: pixels, EXTENTS: extents}
        return self._ragged.run(feeds, shrink=self._is_huge(pixels))

    def _is_huge(self, pixels: np.ndarray) -> bool:
        n, h, w, _ = pixels.shape
        return bool(n * h * w > self._settings.max_batch_pixels)


def _pixels_of(graph: ir.Model) -> tuple[Geometry, int]:
    """Read what the graph's input fixes, and its channels."""
    pixels = next(value for value in graph.graph.inputs if value.name == PIXELS)
    assert pixels.shape is not None  # the front has made it
    batch, height, width, channels = (size if isinstance(size, int) else None for size in pixels.shape)
    assert channels is not None
    return Geometry(batch, height, width), channels

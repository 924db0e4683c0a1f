"""The ceiling: decode and run in this process, by the service's own codec and session, with nothing between them.

What the service does beside that (HTTP, its event loop, checks, queues, JSON) is what the comparison shows.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from graphs.front import PIXELS, attach_front
from service.codecs.images import decode
from service.cores import available_cores
from service.runtime.reading import read_model
from service.runtime.session import Session, resolve_provider
from service.settings import Settings

Span = tuple[float, float]
"""(start on time.monotonic, seconds taken) of one picture."""


class Ceiling:
    """A model in this process: one session, whose threads are the service's, and as many decoding threads as it has."""

    def __init__(self, path: Path, settings: Settings) -> None:
        graph, self._card = read_model(path)
        attach_front(graph, self._card)
        provider = resolve_provider(settings.provider)
        data = ir.to_proto(graph).SerializeToString()
        self._session = Session(data, provider=provider, device_id=settings.device_id, threads=settings.threads)
        self._settings = settings
        self._decode_threads = settings.decode_threads or available_cores()
        self.device = self._session.device

    def _decode(self, picture: bytes) -> np.ndarray:
        channels: Literal["L", "RGB"] = "L" if self._card.preprocessing.channels == "L" else "RGB"
        return decode(picture, channels=channels, max_pixels=self._settings.max_pixels)  # (H,W,C)

    def measure(self, pictures: Sequence[bytes], in_flight: int, seconds: float) -> list[Span]:
        """Go through pictures for a while, `in_flight` at a time; one at a time goes through a single thread."""
        return self._alone(pictures, seconds) if in_flight == 1 else self._crowd(pictures, in_flight, seconds)

    def _alone(self, pictures: Sequence[bytes], seconds: float) -> list[Span]:
        spans: list[Span] = []
        end = time.monotonic() + seconds
        while (started := time.monotonic()) < end:
            self._session.run({PIXELS: self._decode(pictures[len(spans) % len(pictures)])[None]})
            spans.append((started, time.monotonic() - started))
        return spans

    def _crowd(self, pictures: Sequence[bytes], in_flight: int, seconds: float) -> list[Span]:
        """Decoding threads on one side, the session on the other; what is decoded when the session is free goes together."""
        encoded: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
        decoded: queue.SimpleQueue[tuple[float, np.ndarray]] = queue.SimpleQueue()

        def decoder() -> None:
            while (work := encoded.get()) is not None:
                decoded.put((work[0], self._decode(work[1])))

        threads = [threading.Thread(target=decoder, daemon=True) for _ in range(self._decode_threads)]
        for thread in threads:
            thread.start()
        spans: list[Span] = []
        end = time.monotonic() + seconds
        for turn in range(in_flight):
            encoded.put((time.monotonic(), pictures[turn % len(pictures)]))
        due = in_flight
        while due:
            batch = [decoded.get()]
            pixels = batch[0][1]
            limit = max(1, self._settings.max_batch_pixels // (pixels.shape[0] * pixels.shape[1]))
            while len(batch) < limit and not decoded.empty():
                batch.append(decoded.get())
            together = pixels[None] if len(batch) == 1 else np.stack([image for _, image in batch])  # (N,H,W,C)
            self._session.run({PIXELS: together})
            now = time.monotonic()
            for started, _ in batch:
                spans.append((started, now - started))
                if now < end:
                    encoded.put((now, pictures[len(spans) % len(pictures)]))
                else:
                    due -= 1
        for _ in threads:
            encoded.put(None)
        for thread in threads:
            thread.join()
        return spans

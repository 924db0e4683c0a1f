"""How long the stages of a request took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


class Timing:
    """Seconds of the stages, for Server-Timing."""

    __slots__ = ("decode", "encode", "infer", "queue")

    def __init__(self) -> None:
        self.decode = self.queue = self.infer = self.encode = 0.0

    @contextmanager
    def measured(self, stage: Literal["decode", "queue"]) -> Iterator[None]:
        """Add the time within to a stage, unless it fails."""
        started = time.monotonic()
        yield
        setattr(self, stage, getattr(self, stage) + time.monotonic() - started)

    def header(self) -> tuple[bytes, bytes]:
        """Give the header."""
        return b"server-timing", server_timing(self.decode, self.queue, self.infer, self.encode)


def server_timing(decode_s: float, queue_s: float, infer_s: float, encode_s: float) -> bytes:
    """Word the stages, in milliseconds."""
    stages_ms = (decode_s * 1e3, queue_s * 1e3, infer_s * 1e3, encode_s * 1e3)
    return b"decode;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f" % stages_ms

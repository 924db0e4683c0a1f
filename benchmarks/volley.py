"""Closed loops with as little as a client can do: for services that answer in tens of microseconds, next to which load.py is slow.

Each connection sends one request again the moment its answer is whole; nothing awaits, no answer is kept. Like load.py to
127.0.0.1 only, and bounded.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

import uvloop

from benchmarks.load import HOST, MAX_CLIENTS, MAX_SECONDS
from benchmarks.statistics import Pace, pace

_LENGTH = b"\r\ncontent-length: "


@dataclass(frozen=True)
class Volley:
    """What came of it.

    Attributes:
        pace: rate and latencies.
        busy: part of the time for which this process had the processor: near 1 the clients were the limit.
    """

    pace: Pace
    busy: float


class _Client(asyncio.Protocol):
    def __init__(self, message: bytes, end: float, gone: asyncio.Future[None]) -> None:
        self.transport: asyncio.Transport
        self.spans: list[tuple[float, float]] = []
        self.refusal = b""
        self._message, self._end, self._gone = message, end, gone
        self._sent = 0.0
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._send()

    def _send(self) -> None:
        self._sent = time.monotonic()
        self.transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        head = data.find(b"\r\n\r\n")
        place = data.find(_LENGTH)
        if head < 0 or place < 0:
            self._data = data
            return
        length = int(data[place + len(_LENGTH) : data.index(b"\r\n", place + len(_LENGTH))])
        if len(data) < head + 4 + length:
            self._data = data
            return
        self._data = b""
        now = time.monotonic()
        self.spans.append((self._sent, now - self._sent))
        if not data.startswith(b"HTTP/1.1 200"):
            self.refusal = data[:200]
        if self.refusal or now >= self._end:
            self.transport.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)


async def _fire(port: int, message: bytes, clients: int, seconds: float) -> Volley:
    loop = asyncio.get_running_loop()
    end = time.monotonic() + seconds
    gone = [loop.create_future() for _ in range(clients)]
    started, worked = time.monotonic(), time.process_time()
    made = [await loop.create_connection(lambda f=future: _Client(message, end, f), HOST, port) for future in gone]
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*gone)
    busy = (time.process_time() - worked) / (time.monotonic() - started)
    protocols = [protocol for _, protocol in made]
    for protocol in protocols:
        if protocol.refusal or not protocol.spans:
            raise RuntimeError(f"expected 200 only, got {protocol.refusal!r}")
    return Volley(pace(span for protocol in protocols for span in protocol.spans), busy)


def fire(port: int, message: bytes, *, clients: int, seconds: float) -> Volley:
    """Let closed loops loose on a service of this machine.

    Args:
        port: on 127.0.0.1.
        message: what they send, with its head.
        clients: at most MAX_CLIENTS.
        seconds: for which new requests are sent; at most MAX_SECONDS.

    Raises:
        RuntimeError: an answer is not 200, or there is none.
    """
    if not (0 < clients <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"expected at most {MAX_CLIENTS} clients and {MAX_SECONDS:g} s, got {clients} and {seconds:g}")
    return uvloop.run(_fire(port, message, clients, seconds))

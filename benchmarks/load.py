"""A load generator that costs little: clients and service share the machine, so what a client burns the service lacks.

Raw keep-alive HTTP/1.1 on asyncio, to 127.0.0.1 only. Clients are closed loops: each sends, waits for its answer, sends again.
What is measured is what a client sees, from the write of a request's first byte to the last byte of its answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

HOST = "127.0.0.1"

MAX_CLIENTS = 1024
MAX_SECONDS = 120.0
"""Bounds of one `drive`: a typing mistake shall not become a flood."""

GAVE_UP, BROKEN = -1, -2
"""In place of a status: the client's patience ended; the connection did, without an answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One request as its client saw it.

    Attributes:
        client: who sent it, from 0.
        sent: when its first byte was written, `time.monotonic`.
        took_s: seconds until its answer's last byte, or until the client gave up.
        status: HTTP's, or GAVE_UP, or BROKEN.
        retry_after_s: what the answer asked for; 0 if nothing.
    """

    client: int
    sent: float
    took_s: float
    status: int
    retry_after_s: float = 0.0

    @property
    def done(self) -> float:
        """When it was over, `time.monotonic`."""
        return self.sent + self.took_s


Pause = Callable[[Sample], float]
"""Seconds that a client waits after a sample that was no 200."""


def honour(sample: Sample) -> float:
    """Wait as long as `Retry-After` asks for; a client that got no answer waits one second."""
    return sample.retry_after_s or 1.0


def request(path: str, body: bytes = b"", *, content_type: str = "image/jpeg", timeout_s: float | None = None) -> bytes:
    """Word a request, once; `timeout_s` becomes X-Request-Timeout."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {HOST}", f"Content-Length: {len(body)}"]
    if body:
        lines.append(f"Content-Type: {content_type}")
    if timeout_s is not None:
        lines.append(f"X-Request-Timeout: {timeout_s:g}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection: a request out, the answer's status in; bodies are counted, not kept."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.answer: asyncio.Future[tuple[int, float]] | None = None
        self.open = False
        self._head = b""
        self._missing = 0  # bytes of the answer's body that have not come
        self._result = (0, 0.0)
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((BROKEN, 0.0))

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, mark, body = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            self._head = b""
            lower = head.lower()
            self._missing = int(_field(lower, b"content-length") or 0) - len(body)
            self._result = (int(head[9:12]), float(_field(lower, b"retry-after") or 0))
            self._last = _field(lower, b"connection") == b"close"
        if self._missing == 0 and self.answer is not None and not self.answer.done():
            if self._last:
                self.transport.close()
                self.open = False
            self.answer.set_result(self._result)

    async def exchange(self, client: int, message: bytes, patience_s: float | None) -> Sample:
        """Send and wait; on GAVE_UP the connection is cut, as a client's would be."""
        self.answer = asyncio.get_running_loop().create_future()
        sent = time.monotonic()
        self.transport.write(message)
        try:
            async with asyncio.timeout(patience_s):
                status, retry_after_s = await self.answer
        except TimeoutError:
            self.abort()
            status, retry_after_s = GAVE_UP, 0.0
        return Sample(client, sent, time.monotonic() - sent, status, retry_after_s)

    def abort(self) -> None:
        self.open = False
        self.transport.abort()


def _field(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


async def _client(
    client: int,
    port: int,
    messages: Sequence[bytes],
    samples: list[Sample],
    *,
    end: float,
    patience_s: float | None,
    pause: Pause,
) -> None:
    loop = asyncio.get_running_loop()
    connection: _Connection | None = None
    turn = client
    try:
        while time.monotonic() < end:
            if connection is None or not connection.open:
                _, connection = await loop.create_connection(_Connection, HOST, port)
            sample = await connection.exchange(client, messages[turn % len(messages)], patience_s)
            samples.append(sample)
            turn += 1
            if sample.status != 200:
                await asyncio.sleep(min(pause(sample), max(0.0, end - time.monotonic())))
    finally:
        if connection is not None:
            connection.abort()


async def drive(
    port: int,
    messages: Sequence[bytes],
    *,
    clients: int,
    seconds: float,
    patience_s: float | None = None,
    pause: Pause = honour,
    leave: bool = False,
) -> list[Sample]:
    """Let closed-loop clients loose on a service of this machine.

    Args:
        port: on 127.0.0.1.
        messages: what they send, in turns; each client begins at another one.
        clients: at most MAX_CLIENTS.
        seconds: for which new requests are sent; at most MAX_SECONDS.
        patience_s: after which a client cuts its connection; None is for ever.
        pause: what a client does after a refusal.
        leave: at the end cut every connection at once; otherwise wait for the answers that are due.

    Returns:
        One sample for each request that ended, in that order.
    """
    if not (0 < clients <= MAX_CLIENTS and 0 < seconds <= MAX_SECONDS):
        raise ValueError(f"expected at most {MAX_CLIENTS} clients and {MAX_SECONDS:g} s, got {clients} and {seconds:g}")
    samples: list[Sample] = []
    end = time.monotonic() + seconds
    tasks = [
        asyncio.ensure_future(_client(client, port, messages, samples, end=end, patience_s=patience_s, pause=pause))
        for client in range(clients)
    ]
    if leave:
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]
    return samples


def run(port: int, messages: Sequence[bytes], *, clients: int, seconds: float) -> list[Sample]:
    """`drive` with patient clients, from a program without an event loop."""
    return uvloop.run(drive(port, messages, clients=clients, seconds=seconds))

"""A lone client on one blocking socket: nothing but a write, and reads until the answer is there.

On an idle machine each hop of an event loop in the client would count as much as one in the service.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import HOST
from benchmarks.statistics import median

_STAGE = re.compile(rb"(\w+);dur=([\d.]+)")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Visit:
    """One answered request.

    Attributes:
        sent: when its first byte was written, `time.monotonic`.
        took_s: seconds until its answer's last byte.
        head: the answer's status line and headers.
    """

    sent: float
    took_s: float
    head: bytes


def visit(port: int, messages: Sequence[bytes], seconds: float) -> list[Visit]:
    """Send requests one after the other, in turns, for a while.

    Raises:
        RuntimeError: an answer is not 200. ConnectionError: there is none.
    """
    visits: list[Visit] = []
    end = time.monotonic() + seconds
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (sent := time.monotonic()) < end:
            connection.sendall(messages[len(visits) % len(messages)])
            head = _answer(connection)
            visits.append(Visit(sent, time.monotonic() - sent, head))
    return visits


def _answer(connection: socket.socket) -> bytes:
    """Read one answer. Returns its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected 200, got {head[:32]!r}")
    length = _LENGTH.search(head)
    missing = int(length[1] if length else 0) - len(body)
    while missing > 0:
        missing -= len(_some(connection))
    return head


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection within an answer")
    return data


def stages_ms(visits: Sequence[Visit]) -> dict[str, float]:
    """Say where the time went, by the service's own `Server-Timing`.

    Returns:
        Medians in milliseconds: decode, queue, infer, encode as the service says; `rest`, which is HTTP on both sides, the
        framework and the hops between threads; `total` as the client sees it.
    """
    found: dict[str, list[float]] = {}
    for each in visits:
        total = each.took_s * 1e3
        stages = {name.decode(): float(value) for name, value in _STAGE.findall(each.head)}
        for name, value in {**stages, "rest": total - sum(stages.values()), "total": total}.items():
            found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}

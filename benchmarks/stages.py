"""Where the time of a lone request goes: the service's own `Server-Timing`, and what is left of what the client sees."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

from benchmarks.load import HOST
from benchmarks.statistics import median

_STAGE = re.compile(rb"(\w+);dur=([\d.]+)")


def stages_ms(port: int, messages: Sequence[bytes], count: int) -> dict[str, float]:
    """Send requests one after the other over one blocking socket.

    Returns:
        Medians in milliseconds: decode, queue, infer, encode as the service says; `total` as the client sees it; `rest`, which is
        HTTP on both sides, the framework and the hops between threads.
    """
    found: dict[str, list[float]] = {}
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in range(count):
            started = time.perf_counter()
            connection.sendall(messages[turn % len(messages)])
            head = _answer(connection)
            total = (time.perf_counter() - started) * 1e3
            stages = {name.decode(): float(value) for name, value in _STAGE.findall(head)}
            for name, value in {**stages, "rest": total - sum(stages.values()), "total": total}.items():
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}


def _answer(connection: socket.socket) -> bytes:
    """Read one answer. Returns its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected 200, got {head[:32]!r}")
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    missing = int(length[1] if length else 0) - len(body)
    while missing > 0:
        missing -= len(_some(connection))
    return head


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection within an answer")
    return data

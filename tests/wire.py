"""Connections without sockets: streams of bytes in pieces, as sockets bring them, and what is written back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

Kind = Callable[..., HttpToolsProtocol]


class Transport(asyncio.Transport):
    """A socket's place: keeps what is written, who reads, and whether he does now."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.reading = True
        self.closed = False
        self.ended = False
        self.aborted = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert not self.reading, "uvloop reads on for the former"
        self.protocol = protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._kept = protocol.get_buffer, protocol.buffer_updated  # until the next of its kind, as uvloop does

    def bring(self, piece: bytes) -> bytes:
        """Give a piece to who reads; returns what he did not want."""
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            assert isinstance(self.protocol, asyncio.Protocol)
            self.protocol.data_received(piece)
            return b""
        memory = memoryview(self.protocol.get_buffer(65_536))
        size = min(len(memory), len(piece))
        assert size, "nowhere to read to"
        memory[:size] = piece[:size]
        self.protocol.buffer_updated(size)
        return piece[size:]

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.closed = self.aborted = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def opened(kind: Kind, app: ASGIApp) -> tuple[HttpToolsProtocol, Transport]:
    """Open a connection."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, interface="asgi3", ws="none")
    config.load()
    protocol = kind(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Transport(protocol)
    protocol.connection_made(transport)
    return protocol, transport


async def feed(protocol: HttpToolsProtocol, transport: Transport, pieces: list[bytes]) -> None:
    """Bring pieces as a socket does: none while nobody reads, none after the end."""
    for piece in pieces:
        while piece and not transport.closed:
            for _ in range(50):
                if transport.reading:
                    break
                await asyncio.sleep(0)
            piece = transport.bring(piece)  # noqa: PLW2901
            await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    protocol._unset_keepalive_if_required()


async def answered(kind: Kind, app: ASGIApp, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Give what is written after all pieces, and whether the connection is closed."""
    protocol, transport = opened(kind, app)
    await feed(protocol, transport, pieces)
    closed = transport.closed or transport.ended
    protocol.connection_lost(None)  # no timer stays
    return transport.written, closed


def cut(stream: bytes, rng: np.random.Generator) -> list[bytes]:
    """Cut into pieces of up to 256 KiB, as sockets do; sometimes into small ones."""
    pieces = []
    while stream:
        size = int(rng.choice([rng.integers(1, 50), rng.integers(1, 70_000), 262_144]))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


def post(body: bytes, path: str = "/late", more: str = "") -> bytes:
    """A request with a body whose length is said."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body

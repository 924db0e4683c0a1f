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
    """A socket's place: keeps what is written, and whether somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += bytes(data)

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
    config = uvicorn.Config(app, lifespan="off", log_config=None, interface="asgi3")
    config.load()
    protocol, transport = kind(config, ServerState(), {}, asyncio.get_running_loop()), Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def feed(protocol: HttpToolsProtocol, transport: Transport, pieces: list[bytes]) -> None:
    """Bring pieces as a socket does: none while nobody reads, none after the end."""
    for piece in pieces:
        for _ in range(50):
            if transport.reading:
                break
            await asyncio.sleep(0)
        if transport.closed:
            break
        protocol.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    protocol._unset_keepalive_if_required()


async def answered(kind: Kind, app: ASGIApp, pieces: list[bytes]) -> tuple[bytes, bool]:
    """Give what is written after all pieces, and whether the connection is closed."""
    protocol, transport = opened(kind, app)
    await feed(protocol, transport, pieces)
    return transport.written, transport.closed


def cut(stream: bytes, rng: np.random.Generator) -> list[bytes]:
    """Cut into pieces of up to 256 KiB, as sockets do; sometimes into small ones."""
    pieces = []
    while stream:
        size = int(rng.choice([rng.integers(1, 50), rng.integers(1, 70_000), 262_144]))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces

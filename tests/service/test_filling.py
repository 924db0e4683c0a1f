"""Bodies that are read from the socket into memory: what is not filled, and that nothing is kept of it."""

from __future__ import annotations

import asyncio
import weakref

import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

from service.api.intake import filling
from service.connection import Connection
from tests.wire import feed, opened, post

LARGE = 300_000


def test_memory_is_not_kept() -> None:
    held: list[weakref.ref[np.ndarray]] = []

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        first, fill = await receive(), filling(scope)
        assert fill is not None
        memory = np.empty(LARGE - len(first["body"]), np.uint8)
        held.append(weakref.ref(memory))
        assert await fill(memory.data) == memory.size
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def course() -> None:
        protocol, transport = opened(Connection, reader)
        stream = post(b"1" * LARGE)
        await feed(protocol, transport, [stream[:100_000], stream[100_000:]])
        assert transport.written.startswith(b"HTTP/1.1 204 ")
        assert [one() for one in held] == [None]

    asyncio.run(course())


@pytest.mark.parametrize("end", ["the client goes", "the application gives up"])
def test_memory_that_is_not_filled(end: str) -> None:
    """The application hears how much is there; what follows is read by the connection again."""
    heard: list[object] = []
    began, gave_up = asyncio.Event(), asyncio.Event()

    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        fill = filling(scope)
        if fill is not None:
            course = asyncio.ensure_future(fill(memoryview(bytearray(LARGE - len(first["body"])))))
            await began.wait()
            if end == "the client goes":
                heard.append(await course)
                heard.append((await receive())["type"])
                return
            course.cancel()
            with pytest.raises(asyncio.CancelledError):
                await course
            gave_up.set()
            rest, more = 0, True
            while more:
                message = await receive()
                rest += len(message["body"])
                more = message["more_body"]
            heard.append(rest)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def course() -> None:
        stream = post(b"1" * LARGE)
        protocol, transport = opened(Connection, impatient)
        await feed(protocol, transport, [stream[:100_000], stream[100_000:200_000]])
        assert transport.protocol is not protocol
        began.set()
        if end == "the client goes":
            transport.closed = True
            assert isinstance(transport.protocol, asyncio.BufferedProtocol)
            transport.protocol.connection_lost(None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert heard == [100_000, "http.disconnect"]
            return
        await gave_up.wait()
        assert transport.protocol is protocol
        await feed(protocol, transport, [stream[200_000:] + post(b"")])
        assert heard == [len(stream) - 200_000]
        assert transport.written.count(b"204 No Content") == 2

    asyncio.run(course())

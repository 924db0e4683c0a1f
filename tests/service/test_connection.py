"""Large bodies that go past the parser: byte by byte as through it, whatever the pieces; and no further than somebody asks."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.intake import filling
from service.app import create_app
from service.connection import Connection
from service.runtime.repository import Repository
from service.settings import Settings
from tests.wire import answered, cut, feed, opened, post

LARGE = 300_000

UPGRADE = b"Upgrade: h2c\r\nConnection: Upgrade\r\n"
ORDINARY = UPGRADE.replace(b"Up", b"No")
"""As long. uvicorn alone loses the bodies of those that ask for another protocol, so it is not asked for one."""

START = b"HTTP/1.1 "
REFUSED = START + b"400 "

filled: list[int] = []
"""Bytes that were read into memory, of each body that could be."""


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """Say what came: method, path, length and digest of the body. /early answers at once; /late after the whole body.

    /memory has it read into memory, where that can be had.
    """
    body, more = b"", scope["path"] != "/early"
    fill = filling(scope) if scope["path"] == "/memory" else None
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
        if fill is not None and more:
            length = next(int(value) for name, value in scope["headers"] if name == b"content-length")
            memory = memoryview(bytearray(length - len(body)))
            size = await fill(memory)
            filled.append(size)
            body, fill = body + memory[:size], None
            more = len(body) < length
    words = f"{scope['method']} {scope['path']} {len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(words))]})
    await send({"type": "http.response.body", "body": words})


def run(course: Coroutine[Any, Any, None]) -> None:
    asyncio.run(course)


def request(rng: np.random.Generator) -> bytes:
    """A request of any kind, mostly with a large body."""
    length = int(rng.choice([0, 1, 65_536, 65_537, rng.integers(1, 2000), rng.integers(60_000, LARGE)]))
    body = rng.bytes(length)
    path = rng.choice(["/late", "/memory", "/memory", "/early", "/a%20b?c=d"])
    kind = rng.integers(12)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n"
    if kind == 0:
        middle = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, rng))
        return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + middle + b"0\r\n\r\n"
    more = {
        1: "Connection: close\r\n",
        2: UPGRADE.decode(),
        3: "Content-Length: 7\r\n",  # twice
        4: "Transfer-Encoding: chunked\r\n",  # both
    }.get(int(kind), "")
    if kind == 5:
        head = head.replace("1.1", "1.0")
    if kind == 6:
        more = "Expect: 100-continue\r\n"
    said = {7: "x", 8: f"+{length}", 9: f"{length} "}.get(int(kind) + int(rng.integers(0, 8)), str(length))
    return f"{head}{more}Content-Length: {said}\r\n\r\n".encode() + body


def test_any_stream_is_answered_as_by_the_parser_alone(rng: np.random.Generator) -> None:
    filled.clear()

    async def compare() -> None:
        for number in range(150):
            stream = b"".join(request(rng) for _ in range(rng.integers(1, 5))) + (
                b"\0\0" if rng.integers(8) == 0 else b""
            )
            pieces = cut(stream, rng)
            if number == 0:  # one that is read into memory for certain
                stream = post(rng.bytes(LARGE), "/memory")
                pieces = [stream[i : i + 50_000] for i in range(0, len(stream), 50_000)]
            ours = await answered(Connection, describe, pieces)
            ends = np.cumsum([0, *map(len, pieces)])
            plain = stream.replace(UPGRADE, ORDINARY)
            pieces = [plain[start:end] for start, end in itertools.pairwise(ends)]
            theirs = await answered(HttpToolsProtocol, describe, pieces)
            if REFUSED in theirs[0]:
                # What came before broken bytes is answered, and the refusal is said where no answer is on its way. The parser alone
                # closes at once, with requests before them unanswered.
                whole = theirs[0].partition(REFUSED)[0]
                assert Counter(whole.split(START)) <= Counter(ours[0].partition(REFUSED)[0].split(START))
                assert ours[1] == theirs[1]
            else:
                assert ours == theirs

    run(compare())
    assert any(filled), "no body was read into memory"


def test_parser_sees_the_head_of_a_large_body_only(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = Connection._parse

    def watched(self: Connection, data: bytes) -> None:
        seen.append(len(data))
        whole(self, data)

    monkeypatch.setattr(Connection, "_parse", watched)
    stream = post(rng.bytes(LARGE)) + post(b"next")

    async def course() -> None:
        pieces = [stream[i : i + 100_000] for i in range(0, len(stream), 100_000)]
        written, _ = await answered(Connection, describe, pieces)
        assert written.count(b"200 OK") == 2

    run(course())
    assert seen == [100_000, len(post(b"next"))]


def test_nobody_reads_on_while_nobody_asks(rng: np.random.Generator) -> None:
    asked, done = asyncio.Event(), asyncio.Event()
    sizes: list[int] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        more = True
        while more:
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        done.set()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def course() -> None:
        protocol, transport = opened(Connection, slow)
        stream = post(rng.bytes(LARGE))
        for start in range(0, 90_000, 30_000):
            assert transport.reading
            protocol.data_received(stream[start : start + 30_000])
            await asyncio.sleep(0)
        assert not transport.reading
        asked.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.reading
        protocol.data_received(stream[90_000:])
        assert not transport.reading
        await done.wait()
        assert sizes == [90_000 - (len(stream) - LARGE), LARGE - sum(sizes[:1])]
        protocol._unset_keepalive_if_required()

    run(course())


def test_client_that_goes_away_within_a_body_is_told(rng: np.random.Generator) -> None:
    kinds: list[str] = []

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            kinds.append("piece")
        kinds.append(message["type"])

    async def course() -> None:
        protocol, transport = opened(Connection, reader)
        stream = post(rng.bytes(LARGE))
        await feed(protocol, transport, [stream[:100_000], stream[100_000:200_000]])
        protocol.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)

    run(course())
    assert kinds == ["piece", "piece", "http.disconnect"]


@pytest.fixture
def ask(model_folder: Any) -> Iterator[Callable[..., bytes]]:
    """The whole service behind a real socket: sends pieces, gives what came back until the connection is closed or silent."""
    values = Settings(models=model_folder, provider="cpu", body_timeout_s=0.3, max_body_bytes=4_000_000)
    app = create_app(values, Repository.load(values))
    config = uvicorn.Config(app, http=Connection, port=0, lifespan="on", log_config=None, interface="asgi3")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()

    def exchange(*pieces: bytes, answers: int = 1) -> bytes:
        with socket.create_connection(listener.getsockname(), timeout=20) as connection:
            for piece in pieces:
                connection.sendall(piece)
            got = b""
            while got.count(b"HTTP/1.1 ") < answers or not got.endswith(b"}"):
                data = connection.recv(65_536)
                if not data:
                    break
                got += data
            return got

    yield exchange
    server.should_exit = True
    thread.join()


def pooled(x: np.ndarray, more: str = "") -> bytes:
    text = orjson.dumps(x, option=orjson.OPT_SERIALIZE_NUMPY)
    return post(b'{"op":"max","kernel":2,"tensor":%b}' % text, "/v1/pool", f"Content-Type: application/json\r\n{more}")


def test_large_tensors_one_after_the_other_on_one_connection(
    ask: Callable[..., bytes], rng: np.random.Generator
) -> None:
    tensors = [rng.normal(size=(8, 3, side, side)).astype(np.float32) for side in (32, 64, 2, 50)]
    got = ask(b"".join(map(pooled, tensors)), answers=4)
    bodies = [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert len(bodies) == 4
    for body, x in zip(bodies, tensors, strict=True):
        side = x.shape[-1] // 2
        expected = x.reshape(8, 3, side, 2, side, 2).max((3, 5))
        assert np.array_equal(np.float32(orjson.loads(body)["tensor"]), expected)


def test_slow_body_is_a_408(ask: Callable[..., bytes], rng: np.random.Generator) -> None:
    whole = pooled(rng.normal(size=(8, 3, 64, 64)))
    got = ask(whole[:200_000], whole[200_000:-1])
    assert got.startswith(b"HTTP/1.1 408 ")


def test_body_that_is_said_to_be_too_large_is_not_waited_for(ask: Callable[..., bytes]) -> None:
    head = b"POST /v1/pool HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4000001\r\n\r\n"
    assert ask(head).startswith(b"HTTP/1.1 413 ")


def test_body_that_grows_too_large_is_refused_on_its_way(ask: Callable[..., bytes]) -> None:
    head = b"POST /v1/pool HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (500_000, b" " * 500_000)
    got = ask(head, *[piece] * 8, b"1\r\n ")
    assert got.startswith(b"HTTP/1.1 413 ")


def test_client_that_waits_to_be_asked_is_asked(ask: Callable[..., bytes], rng: np.random.Generator) -> None:
    got = ask(pooled(rng.normal(size=(8, 3, 64, 64)), "Expect: 100-continue\r\n"), answers=2)
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")

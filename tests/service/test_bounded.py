"""What a client begins and does not end: counted, timed, refused in the service's words, and no other request's matter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np
import orjson
import pytest

from service.api.at_once.reply import Pending, Reply
from service.connection import Connection
from service.prompt import PromptConnection
from tests.service.test_connection import describe
from tests.wire import Kind, Transport, answered, cut, feed, opened, post

Prompt = partial(PromptConnection, answer=lambda scope, body: None)
KINDS = [Connection, Prompt]
LIMIT_S = 7.0


def run(course: Coroutine[Any, Any, None]) -> None:
    asyncio.run(course)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def go_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Coroutine[Any, Any, None]]:
    """Set the running loop's clock to seconds after the first call, and let it do what is due."""
    started: list[float] = []

    async def go(at_s: float) -> None:
        loop = asyncio.get_running_loop()
        if not started:
            started.append(loop.time())
        monkeypatch.setattr(loop, "time", lambda: started[0] + at_s)
        await turns()

    return go


GoTo = Callable[[float], Coroutine[Any, Any, None]]


def refused(written: bytes, status: int, code: str) -> None:
    """Fail unless the last answer is an error in the service's shape."""
    head, _, body = written[written.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0].startswith(b"http/1.1 %d " % status), written
    answer = orjson.loads(body)
    assert set(answer) == {"error", "code", "request_id"}
    assert answer["code"] == code
    assert {b"connection: close", b"content-length: %d" % len(body), b"content-type: application/json"} <= set(lines)
    assert b"x-request-id: " + answer["request_id"].encode() in lines


def head(size: int, more: bytes = b"", end: bytes = b"\r\n\r\n") -> bytes:
    """A request without a body whose head has a size, most of it in headers of 1000 bytes."""
    start = b"GET /late HTTP/1.1\r\nHost: x\r\n" + more
    left = size - len(start) - len(end)
    lines = b"".join(b"X-%05d: %b\r\n" % (number, b"a" * 989) for number in range(left // 1000))
    return start + lines + b"Y: " + b"b" * (left - len(lines) - 3) + end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "stream",
    [
        head(70_000),
        head(200_000),
        head(70_000, end=b""),
        b"GET /" + b"a" * 70_000,
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b" " * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"\r\n" * 40_000,
        head(70_000, b"Upgrade: h2c\r\nConnection: Upgrade\r\n"),
    ],
    ids=["whole", "large", "half", "half URL", "URL", "spaces", "20 000", "empty lines", "upgrade"],
)
def test_head_that_is_too_large(kind: Kind, stream: bytes, rng: np.random.Generator) -> None:
    async def course() -> None:
        for pieces in ([stream], cut(stream, rng), [stream[i : i + 1000] for i in range(0, len(stream), 1000)]):
            written, closed = await answered(kind, describe, [*pieces, post(b"next")])
            assert (written.count(b"HTTP/1.1 "), closed) == (1, True)
            refused(written, 431, "headers_too_large")

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_are_as_large_as_they_may_be(kind: Kind, rng: np.random.Generator) -> None:
    stream = (
        head(65_000)
        + post(rng.bytes(300_000))
        + head(60_000) * 5
        + post(b"", more="Cookie: " + "c" * 16_384 + "\r\n") * 9
    )

    async def course() -> None:
        for _ in range(10):
            written, closed = await answered(kind, describe, cut(stream, rng))
            assert (written.count(b"HTTP/1.1 200 "), closed) == (16, False)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_later_head_that_is_too_large_leaves_those_before_their_answers(kind: Kind, rng: np.random.Generator) -> None:
    async def course() -> None:
        for late in (head(500_000), head(500_000, end=b"")):
            for pieces in ([post(b"first"), late], cut(post(b"first") + late, rng)):
                written, closed = await answered(kind, describe, [*pieces, post(b"next")])
                assert written.startswith(b"HTTP/1.1 200 ")
                assert closed
                if written.count(b"HTTP/1.1 ") == 2:  # no answer was on its way
                    refused(written, 431, "headers_too_large")

    run(course())


def test_answer_that_is_on_its_way_comes_before_the_end() -> None:
    future: list[asyncio.Future[bytes]] = []

    def later(scope: Any, body: bytes) -> Pending:
        future.append(asyncio.get_running_loop().create_future())
        return Pending(future[-1], lambda said: Reply(b"content-length: %d\r\n" % len(said), said))

    async def course() -> None:
        protocol, transport = opened(partial(PromptConnection, answer=later), describe)
        await feed(protocol, transport, [post(b"first") + head(90_000), post(b"next")])
        assert (transport.written, len(future)) == (b"", 1)
        future[0].set_result(b"answer")
        await turns()
        assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nanswer"
        assert transport.closed

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 20_000, b"a: " + b"b" * 100_000], ids=["many", "long"])
def test_headers_behind_a_body_are_counted_too(kind: Kind, trailers: bytes) -> None:
    async def course() -> None:
        stream = b"POST /late HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n"
        pieces = [stream, *(trailers[i : i + 4000] for i in range(0, len(trailers), 4000)), b"\r\n\r\n"]
        written, closed = await answered(kind, describe, pieces)
        assert (written.count(b"HTTP/1.1 "), closed) == (1, True)
        refused(written, 431, "headers_too_large")

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [b"", post(b"first")])
def test_slow_head_is_a_408(kind: Kind, before: bytes, go_to: GoTo) -> None:
    async def course() -> None:
        await go_to(0.0)
        protocol, transport = opened(partial(kind, limit_s=LIMIT_S), describe)
        protocol.data_received(before + b"GET / HTTP/1.1\r\nX: ")
        for at_s in np.arange(0.5, LIMIT_S, 0.5):
            protocol.data_received(b"a")
            await go_to(float(at_s))
        had = transport.written
        assert had.count(b"HTTP/1.1 ") == bool(before)
        await go_to(2 * LIMIT_S + 0.1)  # it began to run with an answer on its way, perhaps
        refused(transport.written, 408, "request_timeout")
        assert (transport.written.count(b"HTTP/1.1 "), transport.ended) == (1 + bool(before), True)
        protocol.data_received(b"\r\n\r\n" + post(b"next"))  # dropped, until the client has had time to read
        assert not transport.closed
        await go_to(2 * LIMIT_S + 2.2)
        assert transport.closed
        assert transport.written.count(b"HTTP/1.1 ") == 1 + bool(before)
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_connection_on_which_nothing_comes_is_closed_without_words(kind: Kind, sent: bytes, go_to: GoTo) -> None:
    async def course() -> None:
        await go_to(0.0)
        protocol, transport = opened(partial(kind, limit_s=LIMIT_S), describe)
        if sent:
            protocol.data_received(sent)
        await go_to(LIMIT_S - 0.1)
        assert not transport.closed
        await go_to(LIMIT_S + 0.1)
        assert (transport.written, transport.closed) == (b"", True)
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_quiet_connection_and_work_in_progress_are_not_timed(kind: Kind, go_to: GoTo) -> None:
    asked = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asked.wait()
        await describe(scope, receive, send)

    async def course() -> None:
        await go_to(0.0)
        protocol, transport = opened(partial(kind, limit_s=LIMIT_S), slow)
        protocol.data_received(post(b"first") + b"GET / HT")  # the second can wait for the first
        await go_to(5 * LIMIT_S)
        assert transport.written == b""
        asked.set()
        await turns()
        assert transport.written.count(b"200 OK") == 1
        protocol.data_received(b"TP/1.1\r\nHost: x\r\n\r\n")
        await turns()
        await go_to(5 * LIMIT_S + 74)
        assert not transport.closed or protocol.timeout_keep_alive < 74
        assert transport.written.count(b"200 OK") == 2
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1000, 300_000])
def test_rest_of_a_refused_body_must_come_to_its_end(kind: Kind, size: int, go_to: GoTo) -> None:
    async def opened_and_refused() -> tuple[Any, Transport]:
        protocol, transport = opened(partial(kind, limit_s=LIMIT_S), describe)
        protocol.timeout_keep_alive = 60
        protocol.data_received(post(bytes(size), "/early")[: -size // 2])
        await turns()
        assert transport.written.count(b"200 OK") == 1
        return protocol, transport

    async def course() -> None:
        await go_to(0.0)
        protocol, transport = await opened_and_refused()
        for at_s in range(1, 7):
            await go_to(at_s)
            protocol.data_received(b"\0")
        assert not transport.closed
        await go_to(LIMIT_S + 1.1)
        assert transport.closed
        protocol.connection_lost(None)

        await go_to(100)
        protocol, transport = await opened_and_refused()
        protocol.data_received(bytes(size // 2))
        await go_to(100 + 59)  # an idle one from then on
        assert not transport.closed
        await go_to(100 + 61)
        assert transport.closed
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [b"\0\0", b"GET / HTTP/1.1\r\nHost x\r\n\r\n", b"GET / HTTP/1.1\n\n"])
def test_what_is_no_request_is_refused_in_the_services_words(kind: Kind, stream: bytes) -> None:
    async def course() -> None:
        written, closed = await answered(kind, describe, [stream])
        refused(written, 400, "malformed")
        assert closed

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_broken_chunks_are_refused(kind: Kind) -> None:
    async def course() -> None:
        broken = b"POST /late HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
        for pieces in ([broken], [broken[:-5], broken[-5:]]):
            written, closed = await answered(kind, describe, pieces)
            refused(written, 400, "malformed")
            assert (written.count(b"HTTP/1.1 "), closed) == (1, True)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("hosts", "version", "status"),
    [(0, "1.1", 400), (1, "1.1", 200), (2, "1.1", 400), (0, "1.0", 200), (1, "1.0", 200), (2, "1.0", 400)],
)
def test_host_is_said_once(kind: Kind, hosts: int, version: str, status: int) -> None:
    async def course() -> None:
        stream = f"GET /late HTTP/{version}\r\nAccept: */*\r\n".encode() + b"Host: x\r\n" * hosts + b"\r\n"
        written, closed = await answered(kind, describe, [stream])
        assert written.startswith(b"HTTP/1.1 %d " % status)
        assert (written.count(b"HTTP/1.1 "), closed) == (1, status == 400 or version == "1.0")
        if status == 400:
            refused(written, 400, "malformed")
            assert b"expected one header Host, got" in written

    run(course())

"""What a connection answers at once is answered byte by byte as by the application, in its turn, whatever the pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import numpy as np
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.at_once.reply import Pending, Reply
from service.prompt import PromptConnection
from tests.wire import answered, cut, feed, opened

PATHS = ["/none", "/reply", "/pending", "/raises", "/fails", "/unworded"]


def words_of(method: str, path: str, body: bytes) -> bytes:
    return f"{method} {path} {len(body)} {sum(body)}".encode()


class Application:
    """Says what came, as ASGI; counts the requests that came to it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.kinds: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        body, more = b"", True
        while more:
            message = await receive()
            self.kinds.append(message["type"])
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        words = words_of(scope["method"], scope["path"], body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(words))]})
        await send({"type": "http.response.body", "body": words})


def at_once(scope: Scope, body: bytes) -> Reply | Pending | None:
    """Do what the path says: the same words as the application's, now or in a moment, or none."""
    path = scope["path"]

    def word(said: bytes) -> Reply:
        if path == "/unworded":
            raise RuntimeError("secret")
        return Reply(b"content-length: %d\r\n" % len(said), said)

    if path == "/none":
        return None
    if path == "/raises":
        raise RuntimeError("secret")
    words = words_of(scope["method"], path, body)
    if path == "/reply":
        return word(words)
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    if path == "/fails":
        future.set_exception(RuntimeError("secret"))
    else:
        asyncio.get_running_loop().call_soon(lambda: future.cancelled() or future.set_result(words))
    return Pending(future, word)


Prompt = partial(PromptConnection, answer=at_once)


def request(rng: np.random.Generator) -> bytes:
    """A request of any kind."""
    body = rng.bytes(int(rng.choice([0, 1, rng.integers(1, 2000), 65_537])))
    path = PATHS[rng.integers(len(PATHS))]
    kind = rng.integers(10)
    version = "1.0" if kind == 0 else "1.1"
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n"
    if kind == 1:
        return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(body) or 1,
            body or b"x",
        )
    more = {2: "Connection: close\r\n", 3: "Expect: 100-continue\r\n"}
    return f"{head}{more.get(int(kind), '')}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run(course: Coroutine[Any, Any, None]) -> None:
    asyncio.run(course)


def test_any_stream_is_answered_as_by_uvicorn_and_the_application_alone(rng: np.random.Generator) -> None:
    async def compare() -> None:
        for _ in range(300):
            stream = b"".join(request(rng) for _ in range(rng.integers(1, 6)))
            pieces = cut(stream, rng)
            expected = await answered(HttpToolsProtocol, Application(), pieces)
            assert await answered(Prompt, Application(), pieces) == expected

    run(compare())


def post(path: str, body: bytes = b"body", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/reply", 0), ("/pending", 0), ("/none", 1), ("/raises", 1), ("/fails", 1), ("/unworded", 1)],
)
def test_the_application_is_asked_only_where_nothing_was_answered(path: str, asked: int) -> None:
    async def course() -> None:
        application = Application()
        written, _ = await answered(Prompt, application, [post(path)])
        assert written.endswith(words_of("POST", path, b"body"))
        assert len(application.asked) == asked

    run(course())


def test_body_that_does_not_come_with_its_headers_is_waited_for_by_the_application() -> None:
    async def course() -> None:
        application = Application()
        protocol, transport = opened(Prompt, application)
        whole = post("/reply")
        await feed(protocol, transport, [whole[:-1]])
        assert application.asked == ["/reply"]  # where a slow body has its time limit
        assert transport.written == b""
        await feed(protocol, transport, [whole[-1:]])
        assert transport.written.endswith(words_of("POST", "/reply", b"body"))

    run(course())


def test_answers_come_in_the_order_of_their_requests() -> None:
    async def course() -> None:
        application = Application()
        stream = b"".join(post(path) for path in ("/pending", "/reply", "/none", "/reply"))
        written, _ = await answered(Prompt, application, [stream])
        places = [written.index(words_of("POST", path, b"body")) for path in ("/pending", "/reply", "/none")]
        assert places == sorted(places)
        assert written.count(b"200 OK") == 4

    run(course())


def test_garbage_behind_a_request_ends_the_connection_after_its_answer() -> None:
    async def course() -> None:
        written, closed = await answered(Prompt, Application(), [post("/reply") + b"\0\0"])
        assert written.index(b"200 OK") < written.index(b"400 Bad Request")
        assert closed
        written, closed = await answered(Prompt, Application(), [post("/pending") + b"\0\0"])
        assert written.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in written
        assert (written.count(b"HTTP/1.1 "), closed) == (1, True)
        upgrade = "Upgrade: h2c\r\nConnection: Upgrade\r\n"
        written, _ = await answered(Prompt, Application(), [post("/reply", b"", upgrade)])
        assert written.startswith(b"HTTP/1.1 200 ")

    run(course())


def test_client_that_goes_away_takes_its_work_out_of_the_queue() -> None:
    futures: list[asyncio.Future[bytes]] = []

    def never(scope: Scope, body: bytes) -> Pending:
        futures.append(asyncio.get_running_loop().create_future())
        return Pending(futures[-1], lambda said: Reply(b"", said))

    async def course() -> None:
        application = Application()
        protocol, transport = opened(partial(PromptConnection, answer=never), application)
        await feed(protocol, transport, [post("/pending")])
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert futures[0].cancelled()
        assert (application.asked, transport.written) == ([], b"")

    run(course())


def test_server_that_stops_answers_what_is_awaited_and_closes() -> None:
    futures: list[asyncio.Future[bytes]] = []

    def later(scope: Scope, body: bytes) -> Pending:
        futures.append(asyncio.get_running_loop().create_future())
        return Pending(futures[-1], lambda said: Reply(b"content-length: %d\r\n" % len(said), said))

    async def course() -> None:
        protocol, transport = opened(partial(PromptConnection, answer=later), Application())
        await feed(protocol, transport, [post("/pending")])
        protocol.shutdown()
        assert not transport.closed
        futures[0].set_result(b"answer")
        await asyncio.sleep(0)
        assert transport.written == b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nanswer"
        assert transport.closed

    run(course())


@pytest.mark.parametrize("path", ["/reply", "/pending", "/none"])
def test_quiet_connection_is_closed_in_time_and_no_other(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def course() -> None:
        loop, now = asyncio.get_running_loop(), [0.0]
        started = loop.time()
        monkeypatch.setattr(loop, "time", lambda: started + now[0])
        protocol, transport = opened(Prompt, Application())
        protocol.timeout_keep_alive = 5
        for at_s in (0.0, 4.0, 8.0):
            now[0] = at_s
            await turns()
            protocol.data_received(post(path))
            await turns()
        now[0] = 12.9
        await turns()
        assert not transport.closed
        now[0] = 13.1
        await turns()
        assert transport.closed
        assert transport.written.count(b"200 OK") == 3
        protocol.connection_lost(None)

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    run(course())


def test_client_that_does_not_read_is_left_to_the_application() -> None:
    async def course() -> None:
        application = Application()
        protocol, transport = opened(Prompt, application)
        protocol.pause_writing()
        await feed(protocol, transport, [post("/reply")])
        assert (application.asked, transport.written) == (["/reply"], b"")
        protocol.resume_writing()
        for _ in range(5):
            await asyncio.sleep(0)
        assert transport.written.endswith(words_of("POST", "/reply", b"body"))
        protocol._unset_keepalive_if_required()

    run(course())

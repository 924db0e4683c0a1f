"""Requests for another protocol are answered as if they had not asked, bodies and all, and nothing hides behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import numpy as np
import pytest

from service.api.at_once.reply import Reply
from service.connection import Connection
from service.prompt import PromptConnection
from tests.service.test_connection import ORDINARY, UPGRADE, describe
from tests.wire import Kind, answered, cut, post

SETTINGS = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
"""As curl --http2 and Java's HttpClient send it."""

KINDS = [Connection, partial(PromptConnection, answer=lambda scope, body: None)]


def run(course: Coroutine[Any, Any, None]) -> None:
    asyncio.run(course)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asks", [SETTINGS, UPGRADE, UPGRADE.replace(b"h2c", b"websocket")])
def test_body_behind_it_is_the_requests(kind: Kind, asks: bytes, rng: np.random.Generator) -> None:
    async def course() -> None:
        for size in (0, 1, 4_000, 65_536, 300_000):
            asking, plain = (post(rng.bytes(size), more=more) for more in (asks.decode(), ""))
            asking = asking[: len(asking) - size] + plain[len(plain) - size :]
            asked = await answered(kind, describe, cut(asking + post(b"next"), rng))
            assert asked == await answered(kind, describe, [plain, post(b"next")])
            assert asked[0].count(b"200 OK") == 2

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_what_follows_them(kind: Kind, rng: np.random.Generator) -> None:
    chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
    head = b"POST /late HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n"

    async def course() -> None:
        for _ in range(20):
            stream = head % UPGRADE + chunks + post(b"next") + head % UPGRADE + chunks
            plain = stream.replace(UPGRADE, ORDINARY)
            asked = await answered(kind, describe, cut(stream, rng))
            assert asked == await answered(kind, describe, [plain])
            assert asked[0].count(b"200 OK") == 3

    run(course())


def test_request_within_a_body_stays_there() -> None:
    async def course() -> None:
        written, _ = await answered(Connection, describe, [post(post(b"hidden", "/hidden"), more=UPGRADE.decode())])
        assert written.count(b"HTTP/1.1 ") == 1
        assert b"/hidden" not in written

    run(course())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 3\r\nContent-Length: 4\r\n"]
)
def test_ends_that_contradict_each_other_are_refused(framing: bytes) -> None:
    async def course() -> None:
        head = b"POST /late HTTP/1.1\r\nHost: x\r\n%b%b\r\n" % (UPGRADE, framing)
        written, closed = await answered(Connection, describe, [head + b"0\r\n\r\n" + post(b"next")])
        assert (written[:13], written.count(b"HTTP/1.1 "), closed) == (b"HTTP/1.1 400 ", 1, True)

    run(course())


def test_very_many_at_once() -> None:
    async def course() -> None:
        request = b"POST /early HTTP/1.1\r\nHost: x\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"
        kind = partial(PromptConnection, answer=lambda scope, body: Reply(b"content-length: 0\r\n", b""))
        written, _ = await answered(kind, describe, [request * 3000])
        assert written.count(b"200 OK") == 3000

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_tunnel_is_none_and_what_was_to_go_through_it_is_no_request(kind: Kind) -> None:
    async def course() -> None:
        head = b"CONNECT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        written, closed = await answered(kind, describe, [head + post(b"hidden"), post(b"hidden")])
        assert written.startswith(
            b"HTTP/1.1 200 "
        )  # the test's application says yes to all; the service says 404 or 405
        assert (written.count(b"HTTP/1.1 "), closed) == (1, True)
        assert b"connection: close\r\n" in written

    run(course())

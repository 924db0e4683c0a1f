"""Answers that nobody reads end with their connections; those that are read slowly do not."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from tests.service.test_bounded import KINDS, LIMIT_S, GoTo, go_to, run, turns
from tests.service.test_connection import describe
from tests.wire import Kind, Transport, opened, post

__all__ = ["go_to"]


def answering(kind: Kind) -> tuple[Any, Transport]:
    """A connection with an answer on its way that fills its transport."""
    protocol, transport = opened(partial(kind, limit_s=LIMIT_S), describe)
    protocol.data_received(post(b"first"))
    transport.unsent = 100_000
    protocol.pause_writing()
    return protocol, transport


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("closing", [False, True])
def test_client_that_takes_nothing_is_given_up(kind: Kind, closing: bool, go_to: GoTo) -> None:
    async def course() -> None:
        await go_to(0.0)
        protocol, transport = answering(kind)
        transport.closed = closing  # as after an answer with Connection: close, which waits until all is sent
        await go_to(LIMIT_S - 0.1)
        assert not transport.aborted
        await go_to(LIMIT_S + 0.1)
        assert transport.aborted
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_reads_slowly_is_not_until_it_stops(kind: Kind, go_to: GoTo) -> None:
    async def course() -> None:
        await go_to(0.0)
        protocol, transport = answering(kind)
        for turn in range(1, 21):
            transport.unsent -= 1
            await go_to(turn * LIMIT_S + 0.1)
            assert not transport.aborted
        await go_to(22 * LIMIT_S)
        assert transport.aborted
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_goes_on_reading_has_no_timer_any_more(kind: Kind, go_to: GoTo) -> None:
    async def course() -> None:
        await go_to(0.0)
        protocol, transport = answering(kind)
        transport.unsent = 10_000
        protocol.resume_writing()
        await turns()
        assert transport.written.count(b"200 OK") == 1
        await go_to(3 * LIMIT_S)
        assert not transport.aborted
        protocol.connection_lost(None)

    run(course())


@pytest.mark.parametrize("kind", KINDS)
def test_little_that_is_left_when_an_idle_connection_ends(kind: Kind, go_to: GoTo) -> None:
    """Too little for the transport to say that it is full; but closing it waits until it is sent."""

    async def course() -> None:
        await go_to(0.0)
        protocol, transport = opened(partial(kind, limit_s=LIMIT_S), describe)
        protocol.timeout_keep_alive = 5
        protocol.data_received(post(b"first"))
        await turns()
        transport.unsent = 1000
        await go_to(5.1)
        assert (transport.closed, transport.aborted) == (True, False)
        await go_to(5.1 + LIMIT_S + 0.1)
        await go_to(5.1 + 2 * LIMIT_S + 0.2)
        assert transport.aborted
        protocol.connection_lost(None)

    run(course())


def test_timer_is_made_for_nobody_else() -> None:
    async def course() -> None:
        protocol, _ = opened(KINDS[0], describe)
        protocol.data_received(post(b"first"))
        await asyncio.sleep(0)
        assert protocol._unread is None  # type: ignore[attr-defined]
        protocol.connection_lost(None)

    run(course())

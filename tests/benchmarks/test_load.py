"""The load generator against servers that answer as the test wants; and the arithmetic of what it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from benchmarks import load
from benchmarks.results import Goal, Grid
from benchmarks.statistics import pace

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n{}"
LAST = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

Answers = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


async def _drive(answers: Answers, **options: Any) -> tuple[list[load.Sample], int]:
    """Drive clients against a server; `answers` writes the n-th answer of a connection. Returns samples and connections."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        turn = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                await answers(writer, turn)
                turn += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left, as it is meant to
        finally:
            writer.close()

    server = await asyncio.start_server(serve, load.HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        samples = await load.drive(port, [load.request("/", b"x" * 100_000)], **options)
    return samples, connections


def drive(answers: Answers, **options: Any) -> tuple[list[load.Sample], int]:
    return asyncio.run(_drive(answers, **options))


def test_connections_are_kept_and_answers_in_pieces_are_read() -> None:
    async def answers(writer: asyncio.StreamWriter, turn: int) -> None:
        for place in range(len(OK)):
            writer.write(OK[place : place + 1])
            await writer.drain()

    samples, connections = drive(answers, clients=3, seconds=0.1)
    assert connections == 3
    assert len(samples) >= 3
    assert {sample.status for sample in samples} == {200}
    assert {sample.client for sample in samples} == {0, 1, 2}


def test_retry_after_is_read_and_honoured() -> None:
    async def answers(writer: asyncio.StreamWriter, turn: int) -> None:
        writer.write(BUSY)

    samples, _ = drive(answers, clients=2, seconds=0.1)
    assert [(sample.status, sample.retry_after_s) for sample in samples] == [(429, 7.0)] * 2  # 7 s is past the end


def test_client_without_patience_cuts_the_connection_and_makes_another() -> None:
    async def answers(writer: asyncio.StreamWriter, turn: int) -> None:
        pass

    samples, connections = drive(answers, clients=1, seconds=0.2, patience_s=0.02, pause=lambda sample: 0.0)
    assert {sample.status for sample in samples} == {load.GAVE_UP}
    assert connections == len(samples) > 1


def test_closed_connections_are_told_from_answers() -> None:
    async def answers(writer: asyncio.StreamWriter, turn: int) -> None:
        if turn:
            writer.write(LAST)
        else:
            writer.close()

    samples, _ = drive(answers, clients=1, seconds=0.05, pause=lambda sample: 0.0)
    assert {sample.status for sample in samples} == {load.BROKEN}


def test_connection_that_the_server_will_close_is_not_used_again() -> None:
    async def answers(writer: asyncio.StreamWriter, turn: int) -> None:
        writer.write(LAST)

    samples, connections = drive(answers, clients=1, seconds=0.05, pause=lambda sample: 0.0)
    assert {sample.status for sample in samples} == {413}
    assert connections == len(samples)


@pytest.mark.parametrize(("clients", "seconds"), [(0, 1.0), (100_000, 1.0), (1, 0.0), (1, 1e6)])
def test_load_is_bounded(clients: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="at most 1024 clients and 120 s"):
        asyncio.run(load.drive(1, [b""], clients=clients, seconds=seconds))


def test_rate_is_from_the_first_request_to_the_last_answer() -> None:
    found = pace([(10.0, 1.0), (10.0, 2.0), (11.0, 2.0), (12.0, 3.0)])
    assert found.rate == pytest.approx(4 / 5)
    assert found.p50_ms == pytest.approx(2000)


def test_goal_is_met_at_its_bound() -> None:
    assert Goal("", 0.95, ">=", 0.95).met
    assert not Goal("", 0.949, ">=", 0.95).met
    assert Goal("", 1.05, "<=", 1.05).met


def test_grid_is_a_markdown_table() -> None:
    assert Grid("T", ("a", "b"), [("x", "1")]).markdown() == [
        "**T**",
        "",
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
        "",
    ]

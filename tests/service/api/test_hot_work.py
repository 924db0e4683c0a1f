"""The hot road's work: what happens on the event loop and what in threads, crowds, clients that go away meanwhile."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.types import Message

from service.api.hot import Hot
from service.api.middleware import Boundary
from service.api.state import State
from service.app import answer_error
from service.codecs.tensors import nested
from service.runtime.pooling import sessions
from service.runtime.pooling.prepared import Pooled
from service.runtime.session import Session
from tests.claims import relative_error
from tests.service.api.asgi import BODY, JSON, LARGE, NPY, answer, ask, http, length, refusal


class Slow:
    """A pooler whose work does not end until it is let go."""

    work, size = 10**12, 16

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def prepare(self, *_: object) -> Slow:
        return self

    def run(self, x: np.ndarray, deadline: float) -> Pooled:
        self.let_go.wait()
        return Pooled(x)


@pytest.fixture
def slow(state: State) -> Iterator[Slow]:
    pooler = Slow()
    state.pooler = pooler  # type: ignore[assignment]
    yield pooler
    pooler.let_go.set()


def test_client_that_goes_away_while_it_is_pooled(state: State, slow: Slow) -> None:
    # The whole body has come when the client goes: the piece after it is the disconnect.
    sent: list[Message] = []
    messages: list[Message] = [
        {"type": "http.request", "body": BODY, "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it is the hot road's")

    async def course() -> None:
        await Boundary(Hot(inside, state=state), access_log=False, answer_error=answer_error)(http(JSON), receive, send)
        assert not sent
        assert state.pool_admission.waiting == 0
        slow.let_go.set()

    asyncio.run(course())


def test_work_that_does_not_end_in_time_is_a_504(state: State, slow: Slow) -> None:
    limited = (b"x-request-timeout", b"0.05")
    assert refusal(ask(state, BODY, headers=(JSON, limited))[1]) == (504, "timeout")


def test_crowd_is_refused_with_when_to_come_back(state: State) -> None:
    tickets = [state.pool_admission.admit(30.0) for _ in range(2)]
    scopes = {"small": (JSON, length(BODY)), "large": (NPY, length(LARGE))}
    for headers in scopes.values():
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("the body was read")

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("it is the hot road's")

        scope = http(*headers, query=b"op=max")
        asyncio.run(
            Boundary(Hot(inside, state=state), access_log=False, answer_error=answer_error)(scope, receive, send)
        )
        assert refusal(sent) == (429, "overloaded")
        assert int(answer(sent)[1][b"retry-after"]) >= 1
    assert state.pool_admission.waiting == 2
    for ticket in tickets:
        ticket.leave(answered=False)


def test_graph_of_a_new_configuration_is_built_in_a_thread(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    class Watched(Session):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            threads.append(threading.current_thread().name)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(sessions, "Session", Watched)
    for _ in range(2):
        status = answer(ask(state, BODY.replace(b'"max"', b'"gem"'))[1])[0]
        assert status == 200
    assert len(threads) == 1
    assert threads[0] != threading.main_thread().name


@pytest.mark.parametrize(
    ("oddity", "status", "walked"),
    [(b"0.5", 200, False), (b'"NaN"', 200, True), (b"[0.5]", 422, True), (b'"x"', 422, True), (b"1e39", 422, False)],
    ids=["plain", "NaN", "ragged", "text", "too large"],
)
def test_large_json_is_read_on_the_loop_but_for_a_walk_over_its_elements(
    state: State, monkeypatch: pytest.MonkeyPatch, oddity: bytes, status: int, walked: bool
) -> None:
    """Where numbers are not plain each is looked at, which takes ten times as long: in a thread."""
    numbers = np.random.default_rng(0).standard_normal((5, 40, 50)).astype(np.float32)
    numbers[3, 7, 9] = 0.125
    body = b'{"op":"max","kernel":2,"tensor":%b}' % orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    assert len(body) > 2**16
    assert body.count(b",0.125,") == 1
    body = body.replace(b",0.125,", b",%b," % oddity)
    walks: list[threading.Thread] = []
    read = nested._fill

    def watched(*arguments: Any) -> None:
        walks.append(threading.current_thread())
        read(*arguments)

    monkeypatch.setattr(nested, "_fill", watched)
    got, _, text = answer(ask(state, body, headers=(JSON, length(body)))[1])
    assert got == status, text[:300]
    assert bool(walks) == walked
    assert threading.main_thread() not in walks
    if status == 200:
        numbers[3, 7, 9] = np.nan if walked else 0.5
        expected = numbers.reshape(5, 20, 2, 25, 2).max((2, 4)).tolist()
        assert orjson.loads(text.replace(b'"NaN"', b"-7"))["tensor"] == [
            [[-7 if np.isnan(x) else np.float32(x) for x in row] for row in plane] for plane in expected
        ]


def test_what_is_answered_at_once_is_weighed_as_well(state: State) -> None:
    """After one request of much work those of little are not judged by it for long: large bodies, few cells."""
    body = orjson.dumps({"op": "max", "tensor": np.random.default_rng(0).standard_normal((4, 60, 60)).tolist()})
    assert len(body) > 2**16
    heavy = state.pool_admission.admit(30.0)
    heavy.begin()
    heavy.weigh(10**9, 0)
    heavy.leave(answered=True)
    for _ in range(4):
        assert answer(ask(state, body, headers=(JSON, length(body)))[1])[0] == 200
    waiting = state.pool_admission.admit(30.0)
    assert state.pool_admission.backlog < 10**9 / 2
    waiting.leave(answered=False)


@pytest.mark.parametrize("path", ["/v1/pool", "/v1/pool/gradient"])
def test_npz_in_pieces(state: State, path: str) -> None:
    """As from any network: the body is then filled piece by piece."""
    numbers = np.random.default_rng(0).standard_normal((3, 200, 100)).astype(np.float32)
    file = io.BytesIO()
    np.savez(file, tensor=numbers)
    body = file.getvalue()
    headers = ((b"content-type", b"application/x-npz"), (b"accept", b"application/x-npy"), length(body))
    pieces = [body[:1000], body[1000:150_000], body[150_000:]]
    got, _, text = answer(ask(state, *pieces, headers=headers, query=b"op=avg", path=path)[1])
    assert got == 200, text[:300]
    expected = numbers.astype(np.float64).mean((1, 2)) if path == "/v1/pool" else np.full(numbers.shape, 1 / 20_000)
    assert relative_error(np.load(io.BytesIO(text)), expected) <= 1e-5

"""The hot road, spoken to as a server does: limits while the body comes, time, crowds, clients that go away."""

from __future__ import annotations

import asyncio
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
from service.runtime.repository import Repository
from service.runtime.session import Session
from service.settings import Settings
from tests.service.api.tensors import MATRIX, POOLED, npy

BODY = orjson.dumps({"op": "max", "kernel": 2, "tensor": MATRIX})
JSON = (b"content-type", b"application/json")
NPY = (b"content-type", b"application/x-npy")
LARGE = npy(np.arange(2 * 200 * 200, dtype=np.float32).reshape(2, 200, 200))


@pytest.fixture
def state(model_folder: Any) -> Iterator[State]:
    settings = Settings(
        models=model_folder, provider="cpu", max_body_bytes=400_000, body_timeout_s=0.05, max_queue=2, json_reader=False
    )  # each request has an event loop of its own
    made = State(settings, Repository.load(settings))
    yield made
    made.decoders.shutdown()
    made.poolers.shutdown()


def ask(
    state: State,
    *pieces: bytes | None,
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,),
    query: bytes = b"",
    path: str = "/v1/pool",
    method: str = "POST",
) -> tuple[bool, list[Message]]:
    """Send a body in pieces; None for a client that goes away there, silence after the last piece. Returns (passed, sent)."""
    sent: list[Message] = []
    passed = False
    left = list(pieces)

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        nonlocal passed
        passed = True

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        piece = left.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left) or piece == b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "state": {"request_id": "r"},
    }
    asyncio.run(Boundary(Hot(inside, state=state), access_log=False, answer_error=answer_error)(scope, receive, send))
    assert state.pool_admission.waiting == 0
    return passed, sent


def answer(sent: list[Message]) -> tuple[int, dict[bytes, bytes], bytes]:
    start, *bodies = sent
    headers = {name: value for name, value in start["headers"] if name != b"x-request-id"}  # the boundary's
    return start["status"], headers, b"".join(bytes(body["body"]) for body in bodies)


def refusal(sent: list[Message]) -> tuple[int, str]:
    status, _, body = answer(sent)
    return status, orjson.loads(body)["code"]


def length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


def test_body_in_pieces_is_one_body(state: State) -> None:
    for headers in ((JSON, length(BODY)), (JSON,)):
        status, found, body = answer(ask(state, *(BODY[i : i + 1] for i in range(len(BODY))), headers=headers)[1])
        assert (status, orjson.loads(body)["tensor"]) == (200, POOLED)
        assert set(found) == {b"content-type", b"content-length", b"server-timing"}


def test_large_body_in_pieces_fills_one_buffer(state: State) -> None:
    pieces = [LARGE[i : i + 50_000] for i in range(0, len(LARGE), 50_000)]
    for headers in ((NPY, length(LARGE)), (NPY,)):
        status, _, body = answer(ask(state, *pieces, headers=headers, query=b"op=max&kernel=200")[1])
        assert status == 200
        assert np.array_equal(np.frombuffer(body[-8:], np.float32), [39_999, 79_999])


def test_small_answer_takes_two_messages(state: State) -> None:
    assert [message["type"] for message in ask(state, BODY)[1]] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize(
    "request_", [{"method": "GET"}, {"path": "/v1/pool/operators"}, {"path": "/v1/classify"}], ids=str
)
def test_everything_else_passes(state: State, request_: dict[str, Any]) -> None:
    assert ask(state, **request_) == (True, [])


def test_length_above_the_limit_is_refused_before_the_body(state: State) -> None:
    _, sent = ask(state, headers=(JSON, (b"content-length", b"400001")))
    assert refusal(sent) == (413, "payload_too_large")
    assert answer(sent)[1][b"connection"] == b"close"


def test_body_that_grows_above_the_limit_is_not_read_on(state: State) -> None:
    assert refusal(ask(state, *[b" " * 100_000] * 50)[1]) == (413, "payload_too_large")
    assert refusal(ask(state, b" " * 400_001)[1]) == (413, "payload_too_large")


def test_body_that_does_not_come_is_a_408(state: State) -> None:
    for headers in ((JSON,), (NPY, length(LARGE))):
        status, _, body = answer(ask(state, b"", headers=headers)[1])
        assert (status, orjson.loads(body)["code"]) == (408, "request_timeout")


def test_empty_body_and_compressed_body(state: State) -> None:
    assert refusal(ask(state, b"", b"", BODY[:0] + b"")[1])[0] == 408
    encoded = (JSON, (b"content-encoding", b"gzip"))
    assert refusal(ask(state, headers=encoded)[1]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("limit", [b"soon", b"-1", b"0", b"nan"])
def test_time_limit_must_be_seconds(state: State, limit: bytes) -> None:
    headers = (JSON, (b"x-request-timeout", limit))
    assert refusal(ask(state, BODY, headers=headers)[1]) == (422, "invalid_parameter")


def test_time_that_has_passed_is_a_504(state: State) -> None:
    late = (b"x-request-timeout", b"1e-9")
    assert refusal(ask(state, BODY, headers=(JSON, late))[1]) == (504, "timeout")
    _, sent = ask(state, LARGE, headers=(NPY, length(LARGE), late), query=b"op=max&kernel=2")
    assert refusal(sent) == (504, "timeout")


@pytest.mark.parametrize("pieces", [(None,), (BODY[:9], None)], ids=["before its body", "within its body"])
def test_client_that_goes_away_is_answered_nothing(state: State, pieces: tuple[bytes | None, ...]) -> None:
    assert ask(state, *pieces) == (False, [])


class Slow:
    """A pooler whose work does not end until it is let go."""

    work = 10**12

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

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/pool",
        "query_string": b"",
        "headers": [JSON],
        "state": {"request_id": "r"},
    }

    async def course() -> None:
        await Boundary(Hot(inside, state=state), access_log=False, answer_error=answer_error)(scope, receive, send)
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

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/pool",
            "query_string": b"op=max",
            "headers": list(headers),
            "state": {"request_id": "r"},
        }
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

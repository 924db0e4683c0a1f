"""What is answered outside of everything else: the same answers and the same errors as further in, whatever the body does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.api.at_once import AtOnce
from service.app import create_app
from service.runtime.own_input import OwnInput
from service.runtime.repository import Repository
from service.runtime.session import Session
from service.settings import Settings

X = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
BODY = X.tobytes()
QUERY = b"model=colour&shape=3,4,5&dtype=float32"


@pytest.fixture
def app(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    monkeypatch.setattr(
        "service.runtime.handover.hand_over_s", lambda: 1e3
    )  # so that everything runs on the event loop
    settings = Settings(models=model_folder, provider="cpu", body_timeout_s=0.05)
    repository = Repository.load(settings)
    repository.start()
    yield create_app(settings, repository)
    repository.stop()


class Asking:
    """One request in pieces; None for a client that goes away there, silence after the last piece."""

    def __init__(self, *pieces: bytes | None, query: bytes = QUERY, length: int = len(BODY), **headers: str) -> None:
        self.pieces = list(pieces)
        self.sent: list[Message] = []
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/classify",
            "raw_path": b"/v1/classify", "root_path": "", "scheme": "http", "query_string": query,
            "headers": [(b"content-length", b"%d" % length), *named],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip

    async def receive(self) -> Message:
        if not self.pieces:
            await asyncio.Event().wait()
        piece = self.pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def answer(self) -> tuple[int, dict[bytes, bytes], Any]:
        start, body = self.sent
        return start["status"], dict(start["headers"]), orjson.loads(body["body"])


class Inside:
    """What lies within, counted."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.entered = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered += 1
        await self.app(scope, receive, send)


def ask(app: FastAPI, *requests: Asking) -> int:
    """Ask one after the other. Returns how many went further in."""
    inside = Inside(app)
    outside = AtOnce(inside, settings=app.state.poolserve.settings, known=app.state.asked)

    async def run() -> None:
        for request in requests:
            await outside(request.scope, request.receive, request.send)

    asyncio.run(run())
    return inside.entered


def test_second_of_a_form_is_answered_outside_and_as_the_first(app: FastAPI) -> None:
    first, second = Asking(BODY), Asking(BODY, x_request_id="order-66")
    assert ask(app, first, second) == 1
    for request in (first, second):
        status, headers, _ = request.answer()
        assert status == 200
        assert set(headers) == {b"content-type", b"content-length", b"server-timing", b"x-request-id"}
    assert first.answer()[2] == second.answer()[2]
    assert second.answer()[1][b"x-request-id"] == b"order-66"


@pytest.mark.parametrize(
    ("pieces", "headers", "status"),
    [
        ((BODY[:100], BODY[100:]), {}, 200),
        ((b"", BODY), {}, 200),
        ((BODY[:-1],), {}, 422),
        ((BODY,), {"content_type": "application/json"}, 400),
        ((BODY,), {"content_type": "image/png"}, 422),
        ((BODY,), {"content_encoding": "gzip"}, 415),
        ((BODY,), {"x_request_timeout": "soon"}, 422),
        ((BODY,), {"x_request_timeout": "1e-9"}, 504),
        ((BODY[:100],), {}, 422),
        ((), {}, 408),
    ],
    ids=str,
)
def test_what_is_not_as_expected_is_answered_further_in(
    app: FastAPI, pieces: tuple[bytes, ...], headers: dict[str, str], status: int
) -> None:
    odd, good = Asking(*pieces, **headers), Asking(BODY)
    assert ask(app, Asking(BODY), odd, good) == 2
    assert odd.answer()[0] == status
    assert good.answer()[0] == 200


def test_other_length_than_the_form_has_is_said_further_in(app: FastAPI) -> None:
    odd = Asking(BODY + b"0", length=len(BODY) + 1)
    assert ask(app, Asking(BODY), odd) == 2
    assert (odd.answer()[0], odd.answer()[2]["code"]) == (422, "invalid_tensor")


def test_client_that_goes_away_is_answered_nothing(app: FastAPI) -> None:
    gone = Asking(BODY[:100], None)
    assert ask(app, Asking(BODY), gone) == 2
    assert gone.sent == []


def test_failing_run_is_a_500_further_in(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(app, Asking(BODY)) == 1

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    broken = Asking(BODY)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", fail)
        assert ask(app, broken) == 1
    status, headers, body = broken.answer()
    assert (status, body["code"]) == (500, "internal")
    assert headers[b"x-request-id"].decode() == body["request_id"]
    assert ask(app, Asking(BODY)) == 0


def test_what_does_not_run_on_the_event_loop_is_answered_further_in(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(OwnInput, "tick_for", lambda *_: None)
        assert ask(app, Asking(BODY)) == 1
    app.state.asked.clear()
    assert ask(app, Asking(BODY), Asking(BODY)) == 1


def test_everything_else_passes(app: FastAPI) -> None:
    other = Asking(b"", length=0)
    other.scope |= {"method": "GET", "path": "/health/live", "query_string": b""}
    assert ask(app, Asking(BODY), other) == 2
    assert other.answer()[2] == {"status": "live"}


def test_queries_that_never_repeat_are_not_kept(app: FastAPI) -> None:
    ask(app, *(Asking(BODY, query=QUERY + b"&top=%d" % top) for top in range(1, 301)))
    assert len(app.state.asked) <= 256
    long = QUERY + b"&top=" + b"0" * 600 + b"1"
    assert ask(app, Asking(BODY, query=long)) == 1
    assert long not in app.state.asked

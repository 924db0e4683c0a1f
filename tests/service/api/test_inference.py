"""The course of a request at its edges: a client that goes away while it waits, and a refusal that reads no body."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.types import Message

from service.app import create_app
from service.runtime.repository import Repository
from service.settings import Settings
from tests.service.api.colour import GOOD, png


class Call:
    """One ASGI request to /v1/classify, its messages given by the test."""

    def __init__(self, app: FastAPI, *, length: int = len(GOOD)) -> None:
        self.app = app
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.reads = 0
        self.status: int | None = None
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/classify",
            "raw_path": b"/v1/classify",
            "root_path": "",
            "scheme": "http",
            "query_string": b"model=colour",
            "headers": [(b"content-length", str(length).encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }

    async def receive(self) -> Message:
        self.reads += 1
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]

    def body(self, data: bytes) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": data, "more_body": False})

    def disconnect(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> int | None:
        await self.app(self.scope, self.receive, self.send)
        return self.status


@pytest.fixture
def app(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: 0.0)  # so that nothing runs on the event loop
    settings = Settings(models=model_folder, provider="cpu", max_queue=2)
    repository = Repository.load(settings)
    repository.start()
    yield create_app(settings, repository)
    repository.stop()


def test_client_that_goes_away_while_queued_leaves_its_place_and_never_runs(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.inference._WATCH_FROM_S", 0.0)
    model = app.state.poolserve.repository.models["colour"]
    entered, gate = threading.Semaphore(0), threading.Semaphore(0)
    shapes: list[tuple[int, ...]] = []
    run = model.session.run

    def gated(feeds: dict[str, np.ndarray], **options: bool) -> Any:
        shapes.append(feeds["pixels"].shape)
        entered.release()
        assert gate.acquire(timeout=20)
        return run(feeds, **options)

    monkeypatch.setattr(model.session, "run", gated)

    async def test() -> None:
        first, second = Call(app), Call(app)
        first.body(GOOD)
        running = asyncio.ensure_future(first.run())
        assert await asyncio.to_thread(entered.acquire, timeout=20)
        other = png(np.zeros((3, 3, 3), np.uint8))
        second.body(other)
        waiting = asyncio.ensure_future(second.run())
        while model.admission.waiting < 2 or second.reads < 2:  # until it watches for its client
            await asyncio.sleep(0)
        second.disconnect()
        assert await waiting is None  # there is nobody to answer
        assert model.admission.waiting == 1
        gate.release(10)
        assert await running == 200
        assert model.admission.waiting == 0

    try:
        asyncio.run(test())
    finally:
        gate.release(10)
    model.stop()  # what is still queued would run now
    assert shapes == [(1, 5, 5, 3)]
    monkeypatch.setattr(model, "stop", lambda: None)


def test_refusal_reads_no_body(app: FastAPI) -> None:
    model = app.state.poolserve.repository.models["colour"]

    async def test() -> None:
        tickets = [model.admission.admit(30.0) for _ in range(2)]
        call = Call(app, length=10**7)
        assert await call.run() == 429
        assert call.reads == 0
        for ticket in tickets:
            ticket.leave(answered=False)

    asyncio.run(test())


def test_client_that_goes_away_in_its_body_leaves_its_place(app: FastAPI) -> None:
    model = app.state.poolserve.repository.models["colour"]

    async def test() -> None:
        call = Call(app)
        call.incoming.put_nowait({"type": "http.request", "body": GOOD[:20], "more_body": True})
        call.disconnect()
        assert await call.run() is None
        assert model.admission.waiting == 0

    asyncio.run(test())

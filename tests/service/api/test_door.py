"""The door: a crowd is refused before the framework is entered, as the endpoint would refuse it; all else passes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from service.api.door import Door
from service.api.middleware import Boundary
from service.api.state import State
from service.app import INFERENCE_PATHS, answer_error
from service.runtime.model import Model
from service.runtime.repository import Repository
from service.settings import Settings
from tests.service.api.asgi import http


@pytest.fixture
def state(model_folder: Any) -> Iterator[State]:
    settings = Settings(models=model_folder, provider="cpu", max_queue=2)
    made = State(settings, Repository.load(settings))
    yield made
    made.decoders.shutdown()


@pytest.fixture
def model(state: State) -> Model:
    return state.repository.models["colour"]


def ask(
    state: State, *, path: str = "/v1/classify", query: str = "model=colour", method: str = "POST", **headers: str
) -> tuple[bool, list[Message]]:
    """Send one request to a door. Returns whether it went through, and what was answered."""
    passed = False
    sent: list[Message] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal passed
        passed = True

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    lines = ((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    scope = http(*lines, path=path, query=query.encode(), method=method)
    door = Boundary(Door(inside, state=state, paths=INFERENCE_PATHS), access_log=False, answer_error=answer_error)
    asyncio.run(door(scope, receive, send))
    return passed, sent


def crowd(model: Model) -> None:
    for _ in range(2):
        model.admission.admit(30.0)


def test_without_a_crowd_everybody_passes(state: State) -> None:
    assert ask(state) == (True, [])


def test_crowd_is_refused_at_the_door(state: State, model: Model) -> None:
    crowd(model)
    passed, (start, body) = ask(state)
    assert not passed
    assert start["status"] == 429
    assert int(dict(start["headers"])[b"retry-after"]) >= 1
    assert orjson.loads(body["body"])["code"] == "overloaded"
    assert model.admission.refused == 1
    assert model.admission.waiting == 2  # it has taken no place


def test_request_without_a_model_is_judged_by_the_only_one(state: State, model: Model) -> None:
    crowd(model)
    assert ask(state, query="")[0]  # there are several: the endpoint says so
    state.repository.models = {"colour": model}
    assert not ask(state, query="")[0]


@pytest.mark.parametrize(
    "request_",
    [
        {"query": "model=none"},
        {"query": "model=colour&version=99"},
        {"x_request_timeout": "soon"},
        {"query": "", "content_type": "application/json"},
        {"query": "", "content_type": "multipart/form-data; boundary=x"},
        {"path": "/health/ready"},
        {"method": "GET"},
    ],
    ids=str,
)
def test_what_the_door_cannot_judge_passes_whatever_the_crowd(
    state: State, model: Model, request_: dict[str, str]
) -> None:
    crowd(model)
    assert ask(state, **request_) == (True, [])  # type: ignore[arg-type]


def test_patience_of_the_caller_counts(state: State, model: Model) -> None:
    ticket = model.admission.admit(30.0)
    ticket.weigh(int(model.admission.rate * 5), 1)  # five seconds of work, and so much is expected of the next
    assert not ask(state, x_request_timeout="2")[0]
    assert ask(state, x_request_timeout="30")[0]

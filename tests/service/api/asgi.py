"""Tensor requests as a server gives them to the application, what it sends, and clients."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
from starlette.types import Message

from service.api.hot import Hot
from service.api.middleware import Boundary
from service.api.state import State
from service.app import answer_error
from tests.service.api.tensors import MATRIX, npy

BODY = orjson.dumps({"op": "max", "kernel": 2, "tensor": MATRIX})
JSON = (b"content-type", b"application/json")
NPY = (b"content-type", b"application/x-npy")
LARGE = npy(np.arange(2 * 200 * 200, dtype=np.float32).reshape(2, 200, 200))


def http(
    *headers: tuple[bytes, bytes], path: str = "/v1/pool", query: bytes = b"", method: str = "POST"
) -> dict[str, Any]:
    """The scope of a request, as the boundary has left it."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": list(headers),
        "state": {"request_id": "r"},
    }


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

    scope = http(*headers, path=path, query=query, method=method)
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


async def stays() -> Message:
    """A client that says nothing more."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")

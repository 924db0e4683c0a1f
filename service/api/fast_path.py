"""The fast path of /v1/classify: the body is the image, encoded or as numbers. Plain ASGI, without the framework's 0.1 ms.

Forms and JSON pass through: what they cost is not the framework. Both ways meet in the same course of an inference (inference.py)
and the same answer (classify.py), and the same mistake is the same error.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.classify import ClassifyParameters, write_classes
from service.api.images import Upload
from service.api.inference import Inference, Sizes, decode_and_run, explain, follow
from service.api.intake import read_body, read_headers
from service.api.numbers import declared_in, read_and_run
from service.api.parameters import read_query
from service.api.state import State
from service.codecs.tensors.npy import MAGIC
from service.errors import InvalidParameter
from service.runtime.batcher import Answer

PATH = "/v1/classify"

_FRAMED = frozenset({"application/json", "multipart/form-data"})
_UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})  # the last one is curl's own
_NPY = "application/x-npy"

_MAX_QUERY = 512
"""Bytes of a query that is remembered: 256 of them, with what was read of them, take less than a megabyte."""


class FastPath:
    """Pure ASGI, inside of `Boundary`, which answers what fails; everything but raw bodies for PATH passes through."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            state: the app's.
        """
        self.app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        media_type = _media_type(scope["headers"])
        if media_type in _FRAMED:
            await self.app(scope, receive, send)
            return
        inference = await self._infer(scope, receive, media_type)
        content = write_classes(inference)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            (b"server-timing", inference.server_timing().encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _infer(self, scope: Scope, receive: Receive, media_type: str) -> Inference[ClassifyParameters]:
        """Take a request from its headers to the model's outputs.

        Raises:
            ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
        """
        state = self._state
        query = scope["query_string"]
        parameters = _remembered(query) if len(query) <= _MAX_QUERY else _parameters(query)
        said = read_headers(scope["headers"], state.settings)
        deadline = time.monotonic() + said.limit_s
        declared: tuple[str, str] | None = None
        if parameters.shape is not None or parameters.dtype is not None:
            if media_type not in _UNSAID:
                raise InvalidParameter("shape, dtype: expected beside raw numbers (application/octet-stream) only")
            declared = declared_in(parameters.shape, parameters.dtype)
        numbers = declared is not None or media_type == _NPY
        model = state.repository.find(parameters.model, parameters.version)
        ticket = model.admission.admit(said.limit_s, said.length)
        answered = False
        try:
            body = await read_body(receive, said, state.settings, whole=not numbers)
            ticket.begin()
            course: Coroutine[Any, Any, tuple[Sizes, Sequence[Answer], float]]
            if numbers or body[:6] == MAGIC:
                course = read_and_run(state, model, body, ticket, deadline, declared=declared)
            else:
                course = decode_and_run(state, model, Upload([bytes(body)], many=False), ticket, deadline)
            inference = await follow(Request(scope, receive), Inference(parameters, model), course)
            answered = True
            return inference
        finally:
            ticket.leave(answered=answered)


def _media_type(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:  # lower case, as ASGI has them
        if name == b"content-type":
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""


def _parameters(query: bytes) -> ClassifyParameters:
    """Read and check a query.

    Raises:
        InvalidParameter (422): unknown, out of range, or there twice. Malformed (400): more than 64 of them.
    """
    try:
        return ClassifyParameters.model_validate(read_query(query))
    except ValidationError as error:
        raise InvalidParameter(explain(error.errors(), ClassifyParameters.model_fields)) from None


_remembered = lru_cache(256)(_parameters)
"""Clients send the same query again and again; nothing changes what was read of it."""

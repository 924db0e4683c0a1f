"""POST /v2/models/…/infer: plain ASGI, so that a small request pays for what it is and not for the framework.

The same two calls as everywhere are at its end: an image model's queue, and the pooler. What the native endpoints answer with 422
is 400 here: to the protocol's clients a request that cannot be answered is a bad one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.course import in_thread
from service.api.intake import read_body as receive_body
from service.api.oip import pooling
from service.api.oip.headers import HEADER_LENGTH, Said, read_headers
from service.api.oip.imaging import Imaging
from service.api.oip.requests import admit_early, is_quick, limit_s, read_apart, read_body
from service.api.sending import send_answer
from service.api.state import State
from service.api.timing import Timing
from service.codecs.compression import Encoding, choose_encoding, compress
from service.codecs.oip.request import Request
from service.codecs.oip.response import Output, Response, write_response
from service.errors import DeadlineExceeded, Invalid, Malformed, ModelNotFound, ServiceError
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.pooling.pooler import Course
from service.runtime.pooling.prepared import Pooled
from service.runtime.pooling.sessions import NotBuilt
from service.runtime.statistics import Statistics

PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
"""Of inference: a model's name, and its version where one is given."""

_SMALL_WORK = 50_000
"""Cells that are pooled on the event loop, as at /v1/pool."""

WORTH = 256
"""Bytes of an answer from which on it is compressed: below it there is nothing to gain."""

_QUICK = 2**16
"""Bytes that are compressed on the event loop."""

_JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")


class Infer:
    """Pure ASGI, inside of `Boundary`, which answers what fails; everything but inference of the protocol passes through."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            state: the app's.
        """
        self.app = app
        self._state = state
        self._settings = state.settings
        self._imaging = Imaging(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        asked = None
        if scope["type"] == "http" and scope["method"] == "POST":
            asked = PATH.fullmatch(scope["path"])
        if asked is None:
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        name, version = asked.groups()
        statistics: Statistics | None = None
        try:
            if name == pooling.NAME:
                if version not in {None, pooling.VERSION}:
                    raise ModelNotFound(f"model {name} has no such version; there is: {pooling.VERSION}")
                statistics = self._state.pool_statistics
                said = read_headers(scope["headers"], self._settings)
                headers, buffers = await self._pool(said, receive, started)
            else:
                model = self._state.repository.find(name, version)
                statistics = model.statistics
                said = read_headers(scope["headers"], self._settings)
                response, inference = await self._imaging.answer(model, said, scope, receive, started)
                timing = (b"server-timing", inference.server_timing())
                headers, buffers = await self._worded(response, said, timing)
                now = time.monotonic()
                statistics.succeed(
                    inference.answers,
                    total_s=now - started,
                    input_s=inference.decode_s,
                    output_s=now - inference.finished_at,
                )
        except ServiceError as error:
            if statistics is not None:
                statistics.fail(time.monotonic() - started)
            if isinstance(error, Invalid):
                error.status = Malformed.status
            raise
        await send_answer(send, headers, buffers)

    async def _pool(
        self, said: Said, receive: Receive, started: float
    ) -> tuple[list[tuple[bytes, bytes]], Sequence[bytes | memoryview]]:
        """Take a request to the operators, and word its answer.

        Raises:
            ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
        """
        state, plain, timing = self._state, said.plain, Timing()
        whole = said.header_length is None and said.encoding is None
        ticket = admit_early(state.pool_admission, said)
        answered = False
        response: Response | None = None
        try:
            body = await receive_body(receive, plain, self._settings, whole=whole)
            if ticket is not None:
                ticket.begin()
            arrived = time.monotonic()
            deadline = started + plain.limit_s
            if is_quick(said, len(body)):
                request, course = self._plan(body, said)
            else:
                if ticket is None:
                    ticket = self._admitted(said)
                known = await read_apart(state.turns, body, said, deadline, timing)
                reading = partial(self._plan, known or body, said)
                request, course = await in_thread(state, reading, receive, deadline, timing)
            deadline = started + limit_s(request.parameters, plain.limit_s)
            timing.decode = time.monotonic() - arrived - timing.queue
            running = partial(_pooled, request, course, deadline, timing)
            if course.work < _SMALL_WORK:
                with suppress(NotBuilt):  # the first of its kind
                    response = running()
            if response is None:
                if ticket is None:
                    ticket = self._admitted(said)
                ticket.weigh(course.work, 0)
                response = await in_thread(state, running, receive, deadline, timing)
            answered = True
        finally:
            if ticket is not None:
                ticket.leave(answered=answered)
        written = await self._worded(response, said, timing.header())
        state.pool_statistics.succeed(
            [Answer((), timing.queue, timing.infer, 1)],
            total_s=time.monotonic() - started,
            input_s=timing.decode,
            output_s=timing.encode,
        )
        return written

    def _plan(self, body: bytes | memoryview | Request, said: Said) -> tuple[Request, Course]:
        request = body if isinstance(body, Request) else read_body(body, said, self._settings, raw=None)
        return request, pooling.prepare(self._state.pooler, request)

    def _admitted(self, said: Said) -> Ticket:
        ticket = self._state.pool_admission.admit(said.plain.limit_s, said.plain.length)
        ticket.begin()
        return ticket

    async def _worded(
        self, response: Response, said: Said, timing: tuple[bytes, bytes]
    ) -> tuple[list[tuple[bytes, bytes]], Sequence[bytes | memoryview]]:
        """Give an answer's headers and buffers, compressed as the caller likes it."""
        header_length, buffers = response
        length = sum(map(len, buffers))
        headers = [timing, _JSON if header_length is None else BINARY]
        if header_length is not None:
            headers.append((HEADER_LENGTH, b"%d" % header_length))
        encoding = choose_encoding(said.accept_encoding) if said.accept_encoding and length >= WORTH else None
        if encoding is not None:
            working = partial(_compressed, buffers, encoding)
            loop = asyncio.get_running_loop()
            data = working() if length <= _QUICK else await loop.run_in_executor(self._state.poolers, working)
            headers.append((b"content-encoding", encoding.encode()))
            buffers, length = [data], len(data)
        headers.append((b"content-length", b"%d" % length))
        return headers, buffers


def _compressed(buffers: Sequence[bytes | memoryview], encoding: Encoding) -> bytes:
    return compress(b"".join(buffers), encoding)


def _pooled(request: Request, course: Course, deadline: float, timing: Timing) -> Response:
    """Pool, and write the answer."""
    started = time.monotonic()
    if started > deadline:
        raise DeadlineExceeded("the time limit passed before the tensor was pooled")
    tensor = request.inputs[pooling.TENSOR].tensor
    assert tensor is not None  # `prepare` has checked it
    pooled: Pooled = course.run(tensor, deadline)
    ended = time.monotonic()
    timing.infer = ended - started
    outputs: list[Output] = pooling.outputs_of(pooled)
    response = write_response(pooling.NAME, pooling.VERSION, request, outputs)
    timing.encode = time.monotonic() - ended
    return response

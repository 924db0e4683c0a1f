"""The course of a request to an image model, from its body to its answer's bytes; what a request asks is remembered (known.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from starlette.requests import Request as Http
from starlette.types import Receive, Scope

from service.api.inference import Inference, ModelParameters, follow
from service.api.intake import Body
from service.api.intake import read_body as receive_body
from service.api.numbers import Form, run_numbers
from service.api.oip import images
from service.api.oip.headers import Said
from service.api.oip.known import Known, learn, recall
from service.api.oip.requests import admit_early, is_quick, limit_s, read_apart, read_body
from service.api.state import State
from service.api.timing import Timing
from service.codecs.oip.request import Input, Request
from service.codecs.oip.response import Response, write_response
from service.codecs.tensors.dtypes import little_endian
from service.runtime.batcher import Answer
from service.runtime.model import Model

_NO_PARAMETERS = ModelParameters()


class _Asked(NamedTuple):
    """What a request asks.

    Attributes:
        request: without its numbers, where it was known.
        form: of its numbers; None: it brings encoded pictures.
        numbers: little-endian.
        pictures: the input, where it brings them.
        known: what it was known by.
    """

    request: Request
    form: Form | None
    numbers: Body
    pictures: Input | None
    known: Known | None


class Imaging:
    """Takes requests to image models."""

    def __init__(self, state: State) -> None:
        """Begin.

        Args:
            state: the app's.
        """
        self._state = state
        self._settings = state.settings

    async def answer(
        self, model: Model, said: Said, scope: Scope, receive: Receive, started: float
    ) -> tuple[Response, Inference[ModelParameters]]:
        """Take a request from its headers to its answer.

        Args:
            model: that it is for.
            said: by the headers.
            scope: ASGI's.
            receive: ASGI's.
            started: on the clock of `time.monotonic`.

        Raises:
            ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
        """
        plain = said.plain
        whole = said.header_length is None and said.encoding is None
        ticket = admit_early(model.admission, said)
        answered = False
        try:
            body = await receive_body(receive, plain, self._settings, whole=whole)
            if ticket is not None:
                ticket.begin()
            arrived = time.monotonic()
            asked = await self._ask(model, said, body, started + plain.limit_s)
            request, form = asked.request, asked.form
            deadline = started + limit_s(request.parameters, plain.limit_s)
            inference = Inference(_NO_PARAMETERS, model)
            if form is not None and form.tick is not None and ticket is None:
                # On the event loop: nobody waits for a place in a queue that is empty after each tick.
                futures = [form.tick.submit(image, deadline) for image in form.images(asked.numbers)]
                inference.answers = [await futures[0]] if len(futures) == 1 else await asyncio.gather(*futures)
                inference.finished_at = time.monotonic()
            else:
                if ticket is None:
                    ticket = model.admission.admit(plain.limit_s, len(body))
                    ticket.begin()
                read_s = time.monotonic() - arrived
                http = Http(scope, receive)
                if form is not None:
                    course = run_numbers(self._state, model, asked.numbers, ticket, deadline, form=form)
                else:
                    assert asked.pictures is not None  # what has no form
                    course = images.run_pictures(self._state, model, asked.pictures, ticket, deadline, http=http)
                inference = await follow(http, inference, course)
                inference.decode_s += read_s
            answered = True
        finally:
            if ticket is not None:
                ticket.leave(answered=answered)
        return self._worded(model, said, body, asked, inference.answers), inference

    async def _ask(self, model: Model, said: Said, body: Body, deadline: float) -> _Asked:
        """Read a body, or remember what it asks.

        Raises:
            ServiceError: whatever is wrong with it.
        """
        known = recall(model, body, said.header_length) if said.encoding is None else None
        if known is not None:
            numbers = bytes(body[said.header_length :])  # a copy, in which they are aligned
            return _Asked(known.request, known.form, numbers, None, known)
        request = await self._read(body, said, deadline)
        given = images.check(model, request)
        if given.tensor is None:
            return _Asked(request, None, b"", given, None)
        return _Asked(request, images.form_of(model, given, self._settings), little_endian(given.tensor), None, None)

    def _worded(self, model: Model, said: Said, body: Body, asked: _Asked, answers: Sequence[Answer]) -> Response:
        request, known = asked.request, asked.known
        if known is not None and known.text is not None:
            header_length, content = known.answer(model, answers)
            return Response(header_length, [content])
        response = write_response(model.name, model.version, request, images.outputs_of(model, request, answers))
        if known is None and asked.form is not None and said.encoding is None:
            known = learn(model, body, said.header_length, request, asked.form)
        if known is not None:
            known.learn_answer(response)
        return response

    async def _read(self, body: Body, said: Said, deadline: float) -> Request:
        reading = partial(read_body, body, said, self._settings, raw=images.IMAGE_BYTES)
        if is_quick(said, len(body)):
            return reading()
        known = await read_apart(self._state.turns, body, said, deadline, Timing())
        if known is not None:
            return known
        return await asyncio.get_running_loop().run_in_executor(self._state.decoders, reading)

"""The fast path of /v1/classify: the body is the image, encoded or as numbers. Plain ASGI, without the framework's 0.1 ms.

Forms and JSON pass through: what they cost is not the framework. Both ways meet in the same course of an inference (inference.py)
and the same answer (classify.py), and the same mistake is the same error.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.classify import NUMBERS_ONLY, ClassifyParameters, Wording, write_classes
from service.api.images import Upload
from service.api.inference import Inference, Sizes, decode_and_run, explain, follow
from service.api.intake import Body, Said, filling, read_body, read_headers
from service.api.numbers import Form, run_numbers
from service.api.parameters import read_query
from service.api.sending import send_answer
from service.api.state import State
from service.codecs.tensors.npy import MAGIC
from service.errors import InvalidParameter
from service.runtime.batcher import Answer
from service.runtime.model import Model
from service.runtime.tick import Tick

PATH = "/v1/classify"

_FRAMED = frozenset({"application/json", "multipart/form-data"})
UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})  # the last one is curl's own
_NPY = "application/x-npy"

_MAX_ASKED = 256
_MAX_QUERY = 512
"""Queries that are remembered, and their bytes: with what was read of them, less than a megabyte."""


class Asked(NamedTuple):
    """What a query asks.

    Attributes:
        parameters: checked.
        model: that answers.
        form: of the numbers that come; None: an image, or a file that says it itself.
        wording: of the answer; None where there is more than one image, or its size is not known.
    """

    parameters: ClassifyParameters
    model: Model
    form: Form | None
    wording: Wording | None


class FastPath:
    """Pure ASGI, inside of `Boundary`, which answers what fails; everything but raw bodies for PATH passes through.

    Attributes:
        known: what queries were found to ask.
    """

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            state: the app's.
        """
        self.app = app
        self._state = state
        self._settings = state.settings
        self.known: OrderedDict[bytes, Asked] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        said = read_headers(scope["headers"], self._settings)
        media_type = _media_type(said.content_type)
        if media_type in _FRAMED:
            await self.app(scope, receive, send)
            return
        deadline = time.monotonic() + said.limit_s
        asked = self._ask(scope["query_string"])
        form = asked.form
        if form is not None and media_type not in UNSAID:
            raise InvalidParameter(NUMBERS_ONLY)
        if form is not None and form.tick is not None and said.length == form.length:
            body = await read_body(receive, said, self._settings, whole=False)
            inference = await run_at_once(asked, form, form.tick, body, deadline)
        else:
            inference = await self._in_turn(asked, media_type, said, Request(scope, receive), deadline)
        headers, content = worded(inference)
        await send_answer(send, headers, (content,))

    async def _in_turn(
        self, asked: Asked, media_type: str, said: Said, request: Request, deadline: float
    ) -> Inference[ClassifyParameters]:
        """Take a request through the model's queue, from its headers on.

        Raises:
            ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
        """
        state, model, form = self._state, asked.model, asked.form
        numbers = form is not None or media_type == _NPY
        ticket = model.admission.admit(said.limit_s, said.length)
        answered = False
        try:
            body = await read_body(
                request.receive, said, self._settings, whole=not numbers, fill=filling(request.scope)
            )
            ticket.begin()
            course: Coroutine[Any, Any, tuple[Sizes, Sequence[Answer], float]]
            if numbers or body[:6] == MAGIC:
                course = run_numbers(state, model, body, ticket, deadline, form=form)
            else:
                upload = Upload([bytes(body)], many=False)
                course = decode_and_run(state, model, upload, ticket, deadline, request=request)
            inference = await follow(request, Inference(asked.parameters, model), course)
            answered = True
            return inference
        finally:
            ticket.leave(answered=answered)

    def _ask(self, query: bytes) -> Asked:
        """Read a query, or remember it: clients send the same one again and again.

        Raises:
            InvalidParameter, InvalidTensor, InvalidImage (422), ModelNotFound (404), PayloadTooLarge (413), Malformed (400).
        """
        known = self.known.get(query)
        if known is not None:
            return known
        parameters = _parameters(query)
        model = self._state.repository.find(parameters.model, parameters.version)
        form = wording = None
        if parameters.shape is not None or parameters.dtype is not None:
            form = Form.declared(model, parameters.shape, parameters.dtype, self._settings)
            if form.count == 1:
                wording = Wording(model, parameters.top, form.height, form.width)
        asked = Asked(parameters, model, form, wording)
        if len(query) <= _MAX_QUERY:
            self.known[query] = asked  # it is cleared when what is loaded changes (app.py)
            if len(self.known) > _MAX_ASKED:
                self.known.popitem(last=False)
        return asked


def worded(inference: Inference[ClassifyParameters]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Give the answer's headers and body."""
    content = write_classes(inference)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"server-timing", inference.server_timing()),
    ]
    return headers, content


async def run_at_once(
    asked: Asked, form: Form, tick: Tick, body: Body, deadline: float
) -> Inference[ClassifyParameters]:
    """Run numbers in the next tick: nobody waits for a place in a queue that is empty after each."""
    inference = Inference(asked.parameters, asked.model, [(form.height, form.width)] * form.count)
    answers = [tick.submit(image, deadline) for image in form.images(body)]
    inference.answers = [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)
    inference.finished_at = time.monotonic()
    return inference


@lru_cache(256)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _parameters(query: bytes) -> ClassifyParameters:
    try:
        return ClassifyParameters.model_validate(read_query(query))
    except ValidationError as error:
        raise InvalidParameter(explain(error.errors(), ClassifyParameters.model_fields)) from None

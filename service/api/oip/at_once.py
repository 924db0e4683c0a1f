"""Inference requests that are answered at once: JSON that is known, before numbers for the event loop. Outside of everything else.

As service/api/at_once.py: whatever is not as expected, or fails, is left to what is inside, which gets it from its beginning.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.at_once import from_the_start
from service.api.inference import Inference, ModelParameters
from service.api.intake import Body, Receiving
from service.api.middleware import HEADER, identify
from service.api.oip.headers import HEADER_LENGTH
from service.api.oip.infer import BINARY, PATH, WORTH
from service.api.oip.known import recall
from service.api.sending import send_answer
from service.api.state import State
from service.runtime.model import Model

_NO_PARAMETERS = ModelParameters()

_CHANGING = frozenset({b"content-encoding", b"x-request-timeout", b"transfer-encoding"})
"""Headers that make something else of a request."""

_MAX_DIGITS = 4
"""Of the length of JSON that is remembered."""


class InferAtOnce:
    """ASGI around the whole application."""

    def __init__(self, app: ASGIApp, *, state: State) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            state: the app's.
        """
        self.app = app
        self._state = state
        self._limit_s = state.settings.timeout_s

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection. No coroutine itself, so that nobody else pays for one more."""
        if scope["type"] == "http" and scope["method"] == "POST":
            asked = _asked(scope["path"])
            if asked is not None:
                return self._serve(*asked, scope, receive, send)
        return self.app(scope, receive, send)

    async def _serve(self, name: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        said = _said(scope["headers"])
        if said is None:
            await self.app(scope, receive, send)
            return
        coming = Receiving(receive)
        message = coming.message
        if message is None or message["type"] != "http.request" or message.get("more_body"):
            await self.app(scope, from_the_start(coming, receive), send)
            return
        try:
            model = self._state.repository.find(name, version)
            answered = await self._answer(model, message.get("body", b""), *said, started)
        except Exception:  # noqa: BLE001 – it comes again, or it was not the request's fault
            answered = None
        if answered is None:
            await self.app(scope, from_the_start(coming, receive), send)
            return
        header_length, content, timing = answered
        headers = [
            (b"server-timing", timing),
            BINARY,
            (HEADER_LENGTH, b"%d" % header_length),
            (b"content-length", b"%d" % len(content)),
            (HEADER, identify(scope["headers"]).encode("ascii")),
        ]
        await send_answer(send, headers, (content,))

    async def _answer(
        self, model: Model, body: Body, header_length: int, compressible: bool, started: float
    ) -> tuple[int, bytes, bytes] | None:
        """Run numbers in the next tick, and word what came out; None where that is not all there is to do."""
        known = recall(model, body, header_length)
        if known is None or known.text is None or known.request.parameters or model.admission.waiting:
            return None
        tick = known.form.tick
        if tick is None or (compressible and known.answer_length >= WORTH):
            return None
        # A copy of the numbers, in which they are aligned.
        futures = [tick.submit(image, started + self._limit_s) for image in known.form.images(body[header_length:])]
        inference = Inference(_NO_PARAMETERS, model)
        inference.answers = [await futures[0]] if len(futures) == 1 else await asyncio.gather(*futures)
        inference.finished_at = time.monotonic()
        header_length, content = known.answer(model, inference.answers)
        timing = inference.server_timing().encode()
        now = time.monotonic()
        output_s = now - inference.finished_at
        model.statistics.succeed(inference.answers, total_s=now - started, input_s=0.0, output_s=output_s)
        return header_length, content, timing


@lru_cache(256)
def _asked(path: str) -> tuple[str, str | None] | None:
    """Read a path: a model's name and version; None where it is no inference."""
    found = PATH.fullmatch(path)
    return None if found is None else (found[1], found[2])


def _said(headers: list[tuple[bytes, bytes]]) -> tuple[int, bool] | None:
    """Read how many bytes of JSON stand before the numbers, and whether the answer may be compressed.

    None where the headers say anything else that matters.
    """
    length: int | None = None
    compressible = False
    for name, value in headers:  # lower case, as ASGI has them
        if name == HEADER_LENGTH:
            if length is not None or not value.isdigit() or len(value) > _MAX_DIGITS:
                return None
            length = int(value)
        elif name == b"accept-encoding":
            compressible = True
        elif name in _CHANGING:
            return None
    return None if length is None else (length, compressible)

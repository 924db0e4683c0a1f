"""Requests that are answered at once: numbers for the event loop, of a form that was seen before. Outside of everything else.

Who takes 10 µs of a batch's run cannot pay as much again for layers that have nothing to do. Whatever is not as expected, or
fails, is left to them: they get the same request from its beginning, and answer it or say what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.fast_path import PATH, UNSAID, Asked, run_at_once, worded
from service.api.intake import Receiving, read_headers
from service.api.middleware import HEADER, identify
from service.api.sending import send_answer
from service.errors import ServiceError
from service.settings import Settings


class AtOnce:
    """ASGI around the whole application."""

    def __init__(self, app: ASGIApp, *, settings: Settings, known: Mapping[bytes, Asked]) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            settings: the app's.
            known: what queries were found to ask.
        """
        self.app = app
        self._settings = settings
        self._known = known

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection. No coroutine itself, so that nobody else pays for one more."""
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            asked = self._known.get(scope["query_string"])
            if asked is not None:
                return self._serve(asked, scope, receive, send)
        return self.app(scope, receive, send)

    async def _serve(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        form = asked.form
        try:
            said = read_headers(scope["headers"], self._settings)
        except ServiceError:
            form = None
        if form is None or form.tick is None or said.length != form.length or said.content_type not in UNSAID:
            await self.app(scope, receive, send)
            return
        deadline = time.monotonic() + said.limit_s
        coming = Receiving(receive)
        message = coming.message
        if message is None or message.get("more_body") or len(message.get("body", b"")) != form.length:
            await self.app(scope, from_the_start(coming, receive), send)
            return
        try:
            headers, content = worded(await run_at_once(asked, form, form.tick, message["body"], deadline))
        except Exception:  # noqa: BLE001 – it comes again, or it was not the request's fault
            await self.app(scope, from_the_start(coming, receive), send)
            return
        headers.append((HEADER, identify(scope["headers"]).encode("ascii")))
        await send_answer(send, headers, (content,))


def from_the_start(coming: Receiving, receive: Receive) -> Receive:
    """Give again what has come, then what comes."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return await coming
        return await receive()

    return again

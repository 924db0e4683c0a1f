"""Requests by ASGI, with no server between: bodies in pieces, clients that leave, and what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message

from service.api.at_once.reply import Pending
from service.prompt import Answer


class Asking:
    """One POST in pieces; None for a client that goes away there, silence after the last piece."""

    def __init__(
        self,
        path: str,
        pieces: Sequence[bytes | None],
        *,
        query: bytes = b"",
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Word a request.

        Args:
            path: without the query.
            pieces: of its body.
            query: without the question mark.
            length: that Content-Length says; None: what the pieces have.
            headers: with underscores for dashes.
        """
        self.pieces = list(pieces)
        self.sent: list[Message] = []
        if length is None:
            length = sum(len(piece or b"") for piece in pieces)
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in (headers or {}).items()]
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
            "raw_path": path.encode(), "root_path": "", "scheme": "http", "query_string": query,
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

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(bytes(message.get("body", b"")) for message in self.sent[1:])


class Inside:
    """What lies within, counted."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before it."""
        self.app = app
        self.entered = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered += 1
        await self.app(scope, receive, send)


def ask(app: ASGIApp, *requests: Asking, at_once: Answer | None = None) -> int:
    """Ask one after the other. Returns how many went to the application, though `at_once` was asked before, as by connections."""
    inside = Inside(app)

    async def run() -> None:
        for request in requests:
            if at_once is None or not await _answered(at_once, request):
                await inside(request.scope, request.receive, request.send)

    asyncio.run(run())
    return inside.entered


async def _answered(at_once: Answer, request: Asking) -> bool:
    """Offer a request that has come whole; nobody sees how an offer fails."""
    if len(request.pieces) != 1 or request.pieces[0] is None:
        return False
    with suppress(Exception):
        found = at_once(request.scope, request.pieces[0])
        if isinstance(found, Pending):
            found = found.word(await found.future)
        if found is not None:
            lines = [line.split(b": ", 1) for line in found.head.split(b"\r\n")[:-1]]
            headers = [(name, value) for name, value in lines]
            request.sent = [
                {"type": "http.response.start", "status": 200, "headers": headers},
                {"type": "http.response.body", "body": found.content},
            ]
            return True
    return False

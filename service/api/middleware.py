"""Around every request: its id, and the log line. Pure ASGI, so that it costs microseconds."""

from __future__ import annotations

import logging
import os
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("service.access")

_HEADER = b"x-request-id"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Gives every request an id: the caller's `X-Request-ID` if it is sane, else a new one; and says it in every answer."""

    def __init__(self, app: ASGIApp, *, access_log: bool) -> None:
        self.app = app
        self.access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = ""
        for name, value in scope["headers"]:  # lower case, as ASGI has them
            if name == _HEADER:
                if _SANE_ID.fullmatch(value):
                    request_id = value.decode("ascii")
                break
        request_id = request_id or os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 499  # the client went away, unless an answer begins

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = [header for header in message["headers"] if header[0] != _HEADER]  # an error has said it itself
                message["headers"] = [*said, (_HEADER, request_id.encode("ascii"))]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            if self.access_log:
                duration_ms = (time.monotonic() - started) * 1e3
                log.info("%s %r %d %.1f ms %s", scope["method"], scope["path"], status, duration_ms, request_id)

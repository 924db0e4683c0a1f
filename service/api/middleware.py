"""Around every request: its id, its log line, and the answer to what fails within. Pure ASGI, so that it costs microseconds."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("service.access")

HEADER = b"x-request-id"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def identify(headers: list[tuple[bytes, bytes]]) -> str:
    """Give a request its id: the caller's `X-Request-ID` if it is sane, else a new one; that it can be guessed is no matter."""
    for name, value in headers:  # lower case, as ASGI has them
        if name == HEADER:
            if _SANE_ID.fullmatch(value):
                return value.decode("ascii")
            break
    return f"{random.getrandbits(128):032x}"


class Boundary:
    """Gives every request an id (the caller's `X-Request-ID` if it is sane, else a new one), and an answer whatever fails."""

    def __init__(
        self, app: ASGIApp, *, access_log: bool, answer_error: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        """Stand around an application.

        Args:
            app: what is inside.
            access_log: whether each request gets a line in the log.
            answer_error: words an error.
        """
        self.app = app
        self._access_log = access_log
        self._answer_error = answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = identify(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 499  # the client went away, unless an answer begins

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, request_id.encode("ascii"))]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # there is nobody to answer
        except Exception as error:
            if status != 499:  # an answer has begun: the server ends the connection
                raise
            response = await self._answer_error(Request(scope), error)
            await response(scope, receive, send_with_id)
        finally:
            if self._access_log:
                duration_ms = (time.monotonic() - started) * 1e3
                log.info("%s %r %d %.1f ms %s", scope["method"], scope["path"], status, duration_ms, request_id)

"""Small tensors that are pooled at once: JSON whose members and shape were seen before. Outside of everything else.

As `at_once`: whatever is not as expected, or fails, is left to what is inside, which gets it from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.at_once import from_the_start
from service.api.course import Timing
from service.api.intake import Receiving
from service.api.middleware import HEADER, identify
from service.api.repeats import Repeats
from service.api.sending import send_answer
from service.api.templates import MAX_BODY
from service.runtime.admission import Admission

PATH = "/v1/pool"

_JSON = b"application/json"
_ALLOWED: dict[bytes, frozenset[bytes]] = {
    b"content-type": frozenset({_JSON}),
    b"accept": frozenset({_JSON, b"*/*"}),
    b"content-encoding": frozenset(),
    b"x-request-timeout": frozenset(),
}
"""Of the headers that matter, the values that change nothing: JSON comes, and JSON will do."""

_MAX_DIGITS = len(str(MAX_BODY))


class PoolAtOnce:
    """ASGI around the whole application."""

    def __init__(self, app: ASGIApp, *, repeats: Repeats, crowd: Admission) -> None:
        """Stand before an application.

        Args:
            app: what is inside.
            repeats: what is known of requests.
            crowd: the queue of tensors: while anybody waits there, it is said further in who is refused.
        """
        self.app = app
        self._repeats = repeats
        self._crowd = crowd

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one ASGI connection. No coroutine itself, so that nobody else pays for one more."""
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":  # noqa: SIM102
            if not scope["query_string"] and not self._crowd.waiting and _is_plain(scope["headers"]):
                return self._serve(scope, receive, send)
        return self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        coming = Receiving(receive)
        message = coming.message
        content: bytes | None = None
        timing = Timing()
        if message is not None and not message.get("more_body"):
            try:
                content = self._repeats.answer(message.get("body", b""), timing)
            except Exception:  # noqa: BLE001 – it comes again, and is reported then
                content = None
        if content is None:
            await self.app(scope, from_the_start(coming, receive), send)
            return
        headers = [
            (b"content-type", _JSON),
            (b"content-length", b"%d" % len(content)),
            timing.header(),
            (HEADER, identify(scope["headers"]).encode("ascii")),
        ]
        await send_answer(send, headers, (content,))


def _is_plain(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the headers say that small JSON comes, and nothing else that matters."""
    json = False
    for name, value in headers:  # lower case, as ASGI has them
        allowed = _ALLOWED.get(name)
        if allowed is not None:
            if value not in allowed:
                return False
            json = json or name == b"content-type"
        elif name == b"content-length" and len(value) > _MAX_DIGITS:
            return False
    return json

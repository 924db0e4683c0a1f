"""How every answer is sent that does not go through the framework, or is too large for it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


async def send_answer(send: Send, headers: list[tuple[bytes, bytes]], buffers: Sequence[bytes | memoryview]) -> None:
    """Send a 200.

    Args:
        send: ASGI's.
        headers: content-length among them, so that the body is not sent in chunks.
        buffers: the body, one after the other; at least one.
    """
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for buffer in buffers[:-1]:
        await send({"type": "http.response.body", "body": buffer, "more_body": True})
    await send({"type": "http.response.body", "body": buffers[-1]})


class PiecewiseResponse(Response):
    """A 200 in pieces, which the framework would have joined: so the server takes them one by one, as the client reads."""

    def __init__(self, pieces: Sequence[bytes | memoryview], media_type: str, headers: dict[str, str]) -> None:
        """Word it.

        Args:
            pieces: of the body, at least one.
            media_type: of the body.
            headers: without the length.
        """
        length = str(sum(map(len, pieces)))
        super().__init__(None, headers={**headers, "content-length": length}, media_type=media_type)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send_answer(send, self.raw_headers, self._pieces)

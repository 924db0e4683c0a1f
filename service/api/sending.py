"""How every answer that does not go through the framework is sent."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Send


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

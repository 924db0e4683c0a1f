"""The least that a tensor can cost over HTTP: a route that receives the body and sends an answer that lies ready, and no more.

Under the service's own server, with its loop and parser. The path says how many bytes the answer has: `/200704`.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _answer(length: int) -> bytes:
    return b"\x3f" * length


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer 200 to anything; what was received is dropped."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    length = scope["path"].rpartition("/")[2]
    answer = _answer(int(length) if length.isdigit() else 0)
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})

"""A request's headers and body straight from ASGI, for requests as small as 4×4 numbers and as large as 256 MiB."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from service.errors import InvalidParameter, Malformed, PayloadTooLarge, RequestTimeout, UnsupportedEncoding
from service.settings import Settings

Body = bytes | memoryview
"""bytes where it came in one piece or without a length, else a view of a buffer that was filled as it came."""


_NOT_ENCODED = frozenset({b"", b"identity"})

FILL = "body.fill"
"""ASGI extension of a large body: {"fill": Fill}."""

Fill = Callable[[memoryview], Awaitable[int]]
"""Memory for all that has not been received → bytes that are there; what is missing comes by `receive`."""


class Said(NamedTuple):
    """What the headers say that matters here.

    Attributes:
        content_type: as sent, parameters and all; "" if absent.
        accept: as sent; "" if absent.
        length: of the body in bytes; None where it is sent in chunks.
        limit_s: seconds that the caller will wait, at most `timeout_s`.
    """

    content_type: str
    accept: str
    length: int | None
    limit_s: float


def read_headers(headers: list[tuple[bytes, bytes]], settings: Settings) -> Said:
    """Go over the headers once, and refuse a body by what they say of it.

    Raises:
        PayloadTooLarge (413): Content-Length passes max_body_bytes.
        UnsupportedEncoding (415): the body is compressed as a whole.
        InvalidParameter (422): X-Request-Timeout is no positive number.
    """
    content_type = accept = ""
    length: int | None = None
    limit_s = settings.timeout_s
    for name, value in headers:  # lower case, as ASGI has them
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"accept":
            accept = f"{accept},{value.decode('latin-1')}" if accept else value.decode("latin-1")
        elif name == b"content-length":
            length = int(value)  # uvicorn has refused what is no number
            if length > settings.max_body_bytes:
                raise PayloadTooLarge(
                    f"expected a body of at most {settings.max_body_bytes} bytes, Content-Length says {length}"
                )
        elif name == b"content-encoding" and value.strip().lower() not in _NOT_ENCODED:
            raise UnsupportedEncoding("Content-Encoding: expected none or identity, got another")
        elif name == b"x-request-timeout":
            limit_s = min(_seconds(value), settings.timeout_s)
    return Said(content_type, accept, length, limit_s)


def _seconds(text: bytes) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidParameter("X-Request-Timeout: expected seconds > 0, got something else")
    return seconds


async def read_body(
    receive: Receive, said: Said, settings: Settings, *, whole: bool, fill: Fill | None = None, empty: bool = False
) -> Body:
    """Read the whole body.

    Args:
        receive: ASGI's.
        said: by the headers.
        settings: for the limits.
        whole: `bytes` are wanted, because the parser takes nothing else; else a large body is written where it stays.
        fill: what `filling` gives.
        empty: whether nothing at all is a body, too: that of a tensor without elements.

    Raises:
        PayloadTooLarge (413): as soon as max_body_bytes is passed, whatever the headers said.
        RequestTimeout (408): it did not come within body_timeout_s.
        Malformed (400): it is empty, and may not be.
        ClientDisconnect: the client went away.
    """
    begun = Receiving(receive)
    if begun.message is not None and begun.message["type"] == "http.request" and not begun.message.get("more_body"):
        return _allowed(begun.message.get("body", b""), settings, empty=empty)
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            message = await begun
            if message["type"] == "http.request" and not message.get("more_body"):
                body: Body = message.get("body", b"")
            elif whole or said.length is None:
                body = await _collected(message, receive, settings)
            else:
                body = await _filled(message, receive, said.length, fill)
    except TimeoutError:
        raise RequestTimeout(f"expected the whole body within {settings.body_timeout_s:g} s, got less") from None
    return _allowed(body, settings, empty=empty)


async def _collected(message: Message, receive: Receive, settings: Settings) -> bytes:
    """Put pieces together, whose number nobody has said."""
    stream = io.BytesIO()  # gives up what it holds without a copy; a list of pieces is copied together
    while True:
        stream.write(_piece(message))
        if stream.tell() > settings.max_body_bytes:
            raise PayloadTooLarge(f"expected a body of at most {settings.max_body_bytes} bytes, more came")
        if not message.get("more_body"):
            return stream.getvalue()
        message = await receive()


async def _filled(message: Message, receive: Receive, length: int, fill: Fill | None) -> memoryview:
    """Fill memory as the body comes; `length`, by the headers, is allowed."""
    # Not a bytearray, which is written full of zeros first: pages of this one are taken as the body comes, so that a
    # Content-Length alone takes no memory.
    memory = np.empty(length, np.uint8).data
    size = 0
    while True:
        piece = _piece(message)
        if size + len(piece) > length:
            raise Malformed(f"expected a body of {length} bytes by Content-Length, more came")
        memory[size : size + len(piece)] = piece
        size += len(piece)
        if not message.get("more_body"):
            return memory[:size]
        if fill is not None:
            size += await fill(memory[size:])
            fill = None
            if size == length:
                return memory
        message = await receive()


def _piece(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    piece: bytes = message.get("body", b"")
    return piece


def filling(scope: Scope) -> Fill | None:
    """Give what reads a request's body from its socket into memory, after the first piece; None where nothing does."""
    fill: Fill | None = scope.get("extensions", {}).get(FILL, {}).get("fill")
    return fill


class Receiving:
    """A `receive` that has gone as far as it goes without waiting.

    A small body has come with its headers, so that nothing is waited for; a timer for it would cost as much as parsing it.

    Attributes:
        message: what came; None where it must be waited for.
    """

    __slots__ = ("_course", "_waited", "message")

    def __init__(self, receive: Receive) -> None:
        self._course = receive().__await__()
        self.message: Message | None = None
        try:
            self._waited = next(self._course)
        except StopIteration as come:
            self.message = come.value

    def now(self) -> Message | None:
        """Give what came, and wait for nothing."""
        self._course.close()
        return self.message

    def __await__(self) -> Generator[Any, Any, Message]:
        if self.message is not None:
            return self.message
        try:
            yield self._waited
        except BaseException:  # cancelled: what was begun ends, too
            self._course.close()
            raise
        rest: Message = yield from self._course
        return rest


def _allowed(body: Body, settings: Settings, *, empty: bool) -> Body:
    if not len(body) and not empty:
        raise Malformed("expected a body, got none")
    if len(body) > settings.max_body_bytes:
        raise PayloadTooLarge(f"expected a body of at most {settings.max_body_bytes} bytes, more came")
    return body

"""A request's body and its time limit, with every limit enforced while the bytes stream in."""

from __future__ import annotations

import asyncio
import io
import math

from fastapi import Request

from service.errors import InvalidParameter, Malformed, PayloadTooLarge, RequestTimeout, UnsupportedMediaType
from service.settings import Settings

TIMEOUT_HEADER = "X-Request-Timeout"


def time_limit_s(request: Request, settings: Settings) -> float:
    """Read how long this caller will wait: its `X-Request-Timeout` in seconds, at most `timeout_s`.

    Raises:
        InvalidParameter: 422; the header is no positive number.
    """
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return settings.timeout_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidParameter(f"{TIMEOUT_HEADER}: expected seconds > 0, got something else")
    return min(seconds, settings.timeout_s)


def check_headers(request: Request, settings: Settings) -> int | None:
    """Refuse a body by what its headers say of it. Returns its length in bytes, if they say it.

    Raises:
        PayloadTooLarge: 413; Content-Length passes max_body_bytes.
        UnsupportedMediaType: 415; the body is compressed as a whole.
    """
    text = request.headers.get("content-length")
    length = None if text is None else int(text)  # uvicorn has refused what is no number
    if length is not None and length > settings.max_body_bytes:
        raise PayloadTooLarge(
            f"expected a body of at most {settings.max_body_bytes} bytes, Content-Length says {length}"
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMediaType("expected a body without Content-Encoding; images are compressed already")
    return length


async def read_body(request: Request, settings: Settings) -> bytes:
    """Read the whole body.

    Raises:
        PayloadTooLarge: 413, as soon as max_body_bytes is passed, whatever the headers said.
        RequestTimeout: 408; it did not come within body_timeout_s.
        Malformed: 400; it is empty.
    """
    stream = io.BytesIO()  # which gives up what it holds without a copy; a list of chunks is copied together
    size = 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body_bytes:
                    raise PayloadTooLarge(f"expected a body of at most {settings.max_body_bytes} bytes, more came")
                stream.write(chunk)
    except TimeoutError:
        raise RequestTimeout(
            f"expected the whole body within {settings.body_timeout_s:g} s, got {size} bytes"
        ) from None
    if not size:
        raise Malformed("expected a body, got none")
    return stream.getvalue()

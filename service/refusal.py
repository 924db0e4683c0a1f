"""Answers to what is no request: the application has not heard of it, and nothing can be read behind it."""

from __future__ import annotations

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.middleware import identify
from service.errors import ServiceError

Headers = list[tuple[bytes, bytes]]


def refusal(error: ServiceError, headers: Headers, default_headers: Headers) -> bytes:
    """Word an answer as the application words errors.

    Args:
        error: what is wrong.
        headers: that have come, names in lower case.
        default_headers: the server's.
    """
    request_id = identify(headers)
    content = orjson.dumps({"error": error.message, "code": error.code, "request_id": request_id})
    lines = [
        *default_headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"x-request-id", request_id.encode("ascii")),
        (b"connection", b"close"),
    ]
    return b"%b%b\r\n%b" % (STATUS_LINE[error.status], b"".join([b"%b: %b\r\n" % line for line in lines]), content)

"""An answer as it goes out, or the promise of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from service.api.middleware import identify

CHANGING = frozenset({b"content-encoding", b"x-request-timeout"})
"""Headers that make something else of a request, which is then left to the application."""


class Reply(NamedTuple):
    """A 200.

    Attributes:
        head: lines of headers, each with its end.
        content: the body.
    """

    head: bytes
    content: bytes


class Pending(NamedTuple):
    """A 200 to come.

    Attributes:
        future: of what is worded; to be cancelled if nobody waits any more.
        word: makes the answer of its result.
    """

    future: asyncio.Future[Any]
    word: Callable[[Any], Reply]


def reply(
    headers: list[tuple[bytes, bytes]], content_type: bytes, timing: bytes, content: bytes, more: bytes = b""
) -> Reply:
    """Word an answer.

    Args:
        headers: of the request, lower case.
        content_type: of the content.
        timing: Server-Timing.
        content: the body.
        more: lines of headers.
    """
    return Reply(
        b"content-type: %b\r\ncontent-length: %d\r\nserver-timing: %b\r\nx-request-id: %b\r\n%b"
        % (content_type, len(content), timing, identify(headers).encode("ascii"), more),
        content,
    )

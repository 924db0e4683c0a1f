"""Requests that ask for another protocol, which a server may answer as if they had not (RFC 9110, 7.8).

The parser stops at the end of their headers: what follows could be anything. curl --http2 and Java's client send bodies there.
"""

from __future__ import annotations

from typing import Protocol

import httptools

Headers = list[tuple[bytes, bytes]]

_FRAMING = {b"content-length", b"transfer-encoding", b"connection"}
"""Headers that say where a request ends."""


def parser_of(callbacks: object) -> httptools.HttpRequestParser:
    """Make a parser as uvicorn does.

    Args:
        callbacks: who is told.
    """
    parser = httptools.HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(
        lenient_data_after_close=True
    )  # a request behind one that ends the connection is no error
    return parser


class Told(Protocol):
    """Who is told what a parser finds."""

    def on_message_begin(self) -> None: ...  # noqa: D102
    def on_url(self, url: bytes) -> None: ...  # noqa: D102
    def on_header(self, name: bytes, value: bytes) -> None: ...  # noqa: D102
    def on_headers_complete(self) -> None: ...  # noqa: D102
    def on_body(self, body: bytes) -> None: ...  # noqa: D102
    def on_message_complete(self) -> None: ...  # noqa: D102


class Declined:
    """Callbacks of a parser that is shown such a request's head again, without what it asked for; silent until its end.

    So where the body ends is found by who finds it in all other requests, from the same headers: no second opinion for somebody
    to hide a request in.
    """

    def __init__(self, told: Told) -> None:
        """Begin.

        Args:
            told: who has heard of the head already.
        """
        self._told = told
        self._silent = True
        self.on_body = told.on_body
        self.on_message_complete = told.on_message_complete

    @staticmethod
    def head(headers: Headers, version: str) -> bytes:
        """Word the head that is shown.

        Args:
            headers: the request's, names in lower case.
            version: of HTTP, as the request says.
        """
        lines = b"".join([b"%b: %b\r\n" % header for header in headers if header[0] in _FRAMING])
        return b"POST / HTTP/%b\r\n%b\r\n" % (version.encode("ascii"), lines)

    def on_message_begin(self) -> None:
        """Tell, if it is another."""
        if not self._silent:
            self._told.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Tell, if it is another's."""
        if not self._silent:
            self._told.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Tell, if it is another's, or behind the body."""
        if not self._silent:
            self._told.on_header(name, value)

    def on_headers_complete(self) -> None:
        """Tell, if they are another's."""
        if not self._silent:
            self._told.on_headers_complete()
        self._silent = False

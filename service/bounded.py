"""One connection: uvicorn's, but nothing that a client begins and does not end is kept for long, or grows without limit.

uvicorn reads headers without end, waits for them for ever, and has a timer only between an answer and the next byte. Here a
request's head has `_HEAD_BYTES` and `limit_s` seconds. What that costs a request that comes whole is one comparison of
sizes, one of requests: everything else is in `_await`, where nothing has come to its end.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import HeadersTooLarge, Malformed, RequestTimeout, ServiceError
from service.hourglass import Hourglass
from service.refusal import refusal
from service.unread import Unread
from service.upgrade import Declined, parser_of

_HEAD_BYTES = 65_536
"""Most that a request's line and headers may have; browsers and balancers stop at a quarter of it."""

_LINGER_S = 2.0
"""How long what still comes is dropped behind a refusal: a socket that is closed before that takes back what was sent."""


class BoundedConnection(HttpToolsProtocol):
    """One client's."""

    _left = 0
    """Bytes of a body that have not come; less than 0: of one whose length nobody has said, how many have."""

    _deaf = False
    """Whether nothing that comes is looked at any more: the connection ends with the answers that are on their way."""

    _waits = True
    """Whether `_clock` may run: for a head, for a body that nobody wants, or for any byte of a new connection."""

    _begun: list[tuple[bytes, bytes]] | None = None
    """The headers that are counted while they come."""

    _certain = 0
    """Bytes of theirs."""

    _most = 0
    """These and what has come together with them."""

    _suspect = False
    """Whether a head that comes to its end now may be too large."""

    _skipped = False
    """Whether a body that nobody wanted has come to its end."""

    _barren = 0
    """Bytes in a row that came where a body was expected, and were none of it."""

    _left_before = 0
    """What `_left` was when such bytes began to be counted."""

    _unread: Unread | None = None
    """Made when the client first leaves something unread that fills more than the socket."""

    def __init__(self, *arguments: Any, limit_s: float = 30.0, **named: Any) -> None:
        """Begin, as uvicorn does.

        Args:
            arguments: uvicorn's.
            limit_s: longest that the head of a request may take to come, and that its client may take nothing of an answer.
            named: uvicorn's.
        """
        super().__init__(*arguments, **named)
        self._limit_s = limit_s
        self._clock = Hourglass(self.loop, self._late)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Wait for the first request."""
        super().connection_made(transport)
        self._clock.turn(self._limit_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._clock.drop()
        if self._unread is not None:
            self._unread.drop()

    def pause_writing(self) -> None:
        """Let the client read for as long as it does."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.rest()

    def on_response_complete(self) -> None:
        """Go on with the next request, or end."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._clock.turn(self._limit_s)

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that is idle."""
        self._close()

    def _close(self) -> None:
        """Close the transport, which waits for ever until all is sent; `_late` does not."""
        self.transport.close()
        self._clock.turn(self._limit_s)

    def _watch_reader(self) -> None:
        """Look whether what is unsent goes."""
        if self.transport.get_write_buffer_size():
            if self._unread is None:
                self._unread = Unread(self.transport, self.loop, self._limit_s)
            self._unread.watch()

    def _begin(self) -> None:
        """Begin a request, if its head is no larger than it may be."""
        if (
            self._suspect
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > _HEAD_BYTES
        ):
            raise _too_large()
        self._barren = self._left_before = 0

    def on_message_complete(self) -> None:
        """Note the end of a request, unless the parser has stopped before the body of one that asks for another protocol."""
        if self.parser.should_upgrade():
            return
        cycle = self.cycle
        if cycle.response_complete:
            self._skipped = True
            return
        cycle.more_body = False
        cycle.message_event.set()

    def _parse(self, data: bytes | memoryview) -> None:
        """Give what comes to the parser."""
        self._unset_keepalive_if_required()
        before, size = self.cycle, len(data)
        self._suspect = self._most + size > _HEAD_BYTES
        while not self._deaf:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                self._decline()
                data = memoryview(data)[stopped.args[0] :]  # a copy each time is quadratic, where there are many
                continue
            except httptools.HttpParserError as error:
                said = error.__context__
                self._refuse(said if isinstance(said, ServiceError) else Malformed("expected a request of HTTP/1.1"))
                return
            break
        cycle = self.cycle
        if cycle is before or cycle.scope is not self.scope:
            self._await(size)
        elif self._waits:
            self._waits = self._skipped = False
            self._begun, self._certain, self._most = None, 0, 0
            self._clock.rest()

    def _decline(self) -> None:
        """Go on as if a request had not asked for another protocol."""
        headers, version = self.headers, self.parser.get_http_version()
        if self.parser.get_method() == b"CONNECT":  # what follows is meant for somebody else, whatever it looks like
            headers, self._deaf, self.cycle.keep_alive = [], True, False
        self.parser = parser_of(Declined(self))
        self.parser.feed_data(Declined.head(headers, version))

    def _await(self, size: int) -> None:
        """Count what came and has ended nothing, and set it a time to end."""
        cycle = self.cycle
        if self._deaf:
            return
        if cycle is None or cycle.scope is not self.scope:
            self._await_head(size)
        elif not cycle.response_complete:
            if cycle.more_body:
                self._await_body(size)
        elif self._skipped:  # it is as if its answer had been sent now; uvicorn waits for ever then
            self._skipped = self._waits = False
            self._clock.rest()
            self._wait_for_next()
        elif not self._waits:
            self._waits = True
            self._clock.turn(self._limit_s)

    def _await_head(self, size: int) -> None:
        if self._begun is not self.headers:
            # Only of the first is it certain that it begins where the data begins. Of others, up to 256 KiB are not counted.
            self._begun, self._certain, self._most = self.headers, 0 if self.cycle else size, size
            if self.cycle:
                self._waits = True
                self._clock.turn(self._limit_s)
        else:
            self._certain += size
            self._most += size
        if self._certain > _HEAD_BYTES:
            self._refuse(_too_large())

    def _await_body(self, size: int) -> None:
        """Count what is none of it: headers behind it are kept, and words beside the sizes of chunks have no end."""
        if self._left != self._left_before:
            self._left_before, self._barren = self._left, 0
            return
        self._barren += size
        if self._barren > _HEAD_BYTES:
            self._refuse(_too_large())

    def _wait_for_next(self) -> None:
        """Close the connection when nothing has come for `timeout_keep_alive` seconds."""
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _late(self) -> None:
        """End what has not come to its end; answers that are on their way come first."""
        cycle = self.cycle
        if self.transport.is_closing():
            self._watch_reader()
        elif self._deaf:
            self._close()
        elif self.flow.read_paused or (cycle is not None and not cycle.response_complete):
            self._clock.turn(self._limit_s)
        elif self.scope is None or (cycle is not None and cycle.scope is self.scope):
            self._close()
        else:
            self._refuse(RequestTimeout(f"expected the whole head of a request within {self._limit_s:g} s, got less"))

    def _refuse(self, error: ServiceError) -> None:
        """Say what is wrong, if nobody else is to be answered first, and end."""
        self._deaf = True
        self._clock.rest()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            if self.pipeline or cycle.response_started:  # its own body is broken, and its turn is not now
                self._close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(refusal(error, self.headers or [], self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._clock.turn(_LINGER_S)


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"expected a request's line and headers to have at most {_HEAD_BYTES} bytes, more came")

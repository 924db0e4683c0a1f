"""A connection that answers at once what can be: without a task, and without ASGI's messages.

What ASGI costs, a task for each request, a message for its body, two for its answer, its headers looked at one by one, is twice
what pooling a small tensor takes. So a request that has come whole is offered to `service.api.at_once` first; what that leaves,
and whatever comes in pieces, goes the usual way from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.api.at_once.reply import Pending, Reply
from service.connection import Connection

log = logging.getLogger(__name__)

Answer = Callable[[Scope, bytes], Reply | Pending | None]
"""Of a request that has come whole; None: the application is to be asked."""

_App = Any  # uvicorn's name for ASGI's type is not exported


class PromptConnection(Connection):
    """One client's."""

    def __init__(self, *arguments: Any, answer: Answer, **named: Any) -> None:
        """Begin, as uvicorn does.

        Args:
            arguments: uvicorn's.
            answer: asked first.
            named: uvicorn's.
        """
        super().__init__(*arguments, **named)
        self._answer = answer
        self._feeding = False
        self._held: tuple[RequestResponseCycle, _App] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""
        self._quiet_since_s: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: _App) -> None:
        """Hold a request until all that has come is looked at; uvicorn calls this after the headers."""
        if self._feeding and app is self.app:
            self._held = cycle, app
        else:  # its turn has come after another's, or there are too many connections
            super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Give what comes to the parser; a body that has not come with it is left to the application."""
        self._quiet_since_s = None
        self._feeding = True
        super().data_received(data)
        self._feeding = False
        if self._held is not None:
            if self._held[0].disconnected:  # what came as its body was none
                self._held = None
            else:
                self._let_go(*self._held)

    def on_message_complete(self) -> None:
        """Offer a request that has come whole."""
        super().on_message_complete()
        if self._held is None or self._held[0].more_body:
            return
        cycle, app = self._held
        self._held = None
        if not self._offer(cycle, app):
            self._let_go(cycle, app)

    def _offer(self, cycle: RequestResponseCycle, app: _App) -> bool:
        """Answer a request, or promise to."""
        if cycle.waiting_for_100_continue or self.flow.write_paused:
            return False
        try:
            found = self._answer(self.scope, bytes(cycle.body))  # type: ignore[arg-type]  # uvicorn's own type of a scope
        except Exception:  # whatever is wrong, it is found again and said by the application
            log.debug("not answered at once", exc_info=True)
            return False
        if found is None:
            return False
        if isinstance(found, Reply):
            self._reply(cycle, found)
        else:
            self._awaited = found.future
            found.future.add_done_callback(partial(self._come, cycle, app, found.word))
        return True

    def _come(
        self, cycle: RequestResponseCycle, app: _App, word: Callable[[Any], Reply], future: asyncio.Future[Any]
    ) -> None:
        """Answer with what was waited for."""
        self._awaited = None
        if cycle.disconnected or self.transport.is_closing():
            if not future.cancelled():
                future.exception()  # nobody is there to hear of it
            return
        try:
            found = word(future.result())
        except Exception:
            log.debug("not answered at once", exc_info=True)
            self._let_go(cycle, app)
            return
        self._reply(cycle, found)

    def _let_go(self, cycle: RequestResponseCycle, app: _App) -> None:
        """Leave a request to the application, from its beginning."""
        self._held = None
        super()._start_asgi_task(cycle, app)

    def _reply(self, cycle: RequestResponseCycle, reply: Reply) -> None:
        """Send an answer, as `RequestResponseCycle.send` does."""
        if cycle.default_headers is not self._default_headers:  # new ones each second, for the date
            self._default_headers = cycle.default_headers
            self._default_lines = b"".join([b"%b: %b\r\n" % header for header in cycle.default_headers])
        end = b"" if cycle.keep_alive else b"connection: close\r\n"
        self.transport.write(b"HTTP/1.1 200 OK\r\n%b%b%b\r\n%b" % (self._default_lines, reply.head, end, reply.content))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self._close()
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
            self._wait_for_next()

    def _wait_for_next(self) -> None:
        """Close the connection when nothing has come for `timeout_keep_alive` seconds.

        uvicorn has a timer for each request, and cancels it with the next. Here one timer looks whether it is time.
        """
        self._quiet_since_s = self.loop.time()
        if self._watch is None:
            self._watch = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._quiet_since_s is None or self.transport.is_closing():
            return  # uvicorn has a timer for the answer that is to come
        left_s = self._quiet_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._watch = self.loop.call_later(left_s, self._look)
        else:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take out what nobody waits for any more."""
        super().connection_lost(exc)
        if self._awaited is not None:
            self._awaited.cancel()
        if self._watch is not None:
            self._watch.cancel()

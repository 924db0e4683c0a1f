"""One serving process: models loaded and warmed, then the socket bound, then an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from service.api.at_once.roads import AtOnce
from service.api.state import State
from service.app import create_app
from service.connection import Connection
from service.prompt import PromptConnection
from service.runtime import heap
from service.runtime.repository import Repository, RepositoryError
from service.runtime.session import ProviderError
from service.settings import Settings

log = logging.getLogger("service")

_KEEP_ALIVE_S = 75
"""How long an idle connection stays open: longer than balancers keep theirs (60 s) and than the longest Retry-After.

So the client closes first, and no request is on its way into a connection that is being closed. With uvicorn's 5 s up to 22 of 640
requests were lost so, of clients that had been told to come back in 5 s.
"""


class Server(uvicorn.Server):
    """uvicorn, with an orderly end: on SIGTERM ready says 503, answers go on for `drain_s`, then what is in flight finishes."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal, or Ctrl-C, does not drain."""
        if sig == signal.SIGTERM and not self._state.draining:
            self._state.draining = True
            asyncio.get_running_loop().call_later(self._state.settings.drain_s, self._leave)
            log.info("SIGTERM: not ready from now on, stopping in %g s", self._state.settings.drain_s)
        else:
            self._leave()

    def _leave(self) -> None:
        # Not uvicorn's own handler: it would raise the signal again at the end, and an orderly end is exit status 0.
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(settings: Settings, *, share_port: bool = False) -> int:
    """Load, bind, serve until a signal.

    Args:
        settings: checked.
        share_port: let other processes listen on the same port; the kernel spreads connections over them.

    Returns:
        The exit status: 0 after an orderly end, not 0 if it could not start (why is on standard error).
    """
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
        force=True,
    )
    # Its passes say at each load how many nodes they removed, and its warnings give a broken graph's names as they are, newlines
    # and all; what matters of them is in the error that follows.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    # SIGTERM must end the process while models load, too; process 1 of a container ignores what it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    living = settings.model_control != "none"
    if living:
        heap.share_arenas()
    try:
        repository = Repository(settings)
        app = create_app(settings, repository)
        if living:  # before there are models: what is frozen and hangs in rings never goes
            _freeze()
        repository.fill()
    except (RepositoryError, ProviderError) as error:
        sys.stderr.write(f"poolserve: cannot start:\n{error}\n")
        return 1
    # What is answered at once has no line in the log: those are written further in.
    kind = Connection if settings.access_log else partial(PromptConnection, answer=AtOnce(app))
    connection = partial(kind, limit_s=settings.body_timeout_s)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", connection),
        ws="none",  # one that is not ours to end would stay when the rest has ended: its shutdown fails, and all with it
        interface="asgi3",
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,  # the middleware's line has the request's id
        timeout_graceful_shutdown=int(settings.timeout_s) + 1,
        timeout_keep_alive=_KEEP_ALIVE_S,
        server_header=False,
    )
    if not living:
        _freeze()
    heap.keep()  # of what requests need, not of what loading has left
    server = Server(config, app.state.poolserve)
    server.run([_shared_socket(settings)] if share_port else None)
    return 0 if server.started else 1


def _freeze() -> None:
    """Have what start-up has made stay.

    Without this the garbage collector goes over its 120 000 objects while requests are answered, which takes a sixth of a small
    request's time.
    """
    gc.collect()
    gc.freeze()


def _shared_socket(settings: Settings) -> socket.socket:
    """Bind, not yet listen: until uvicorn does, after start-up, connections go to the processes that are ready."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((settings.host, settings.port))
    return listener

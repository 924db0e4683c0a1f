"""A bounded cache of sessions: graphs are built at the first request for a configuration and kept."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from service.runtime.session import Provider, Session


class NotBuilt(Exception):
    """A session would have to be built, which takes milliseconds to a second: not on an event loop."""


class Sessions:
    """Least recently used go first. Safe from any thread; ONNX Runtime's own runs are, too.

    Attributes:
        hits: configurations that were there.
        misses: configurations that were built.
    """

    def __init__(self, provider: Provider, device_id: int, *, most: int) -> None:
        self.hits = self.misses = 0
        self._provider: Provider = provider
        self._device_id = device_id
        self._most = most
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: Hashable, write: Callable[[], bytes], *, threads: int = 0) -> Session:
        """Find the session of a configuration, or build it from the graph that `write` serialises.

        Args:
            key: of the configuration.
            write: writes its graph.
            threads: of one run on the CPU; 0 is all cores.

        Raises:
            NotBuilt: it is not there, and this is an event loop's thread.
        """
        with self._lock:
            session = self._sessions.get(key)
            if session is not None:
                self.hits += 1
                self._sessions.move_to_end(key)
                return session
            if _on_event_loop():
                raise NotBuilt
            self.misses += 1
        session = Session(write(), provider=self._provider, device_id=self._device_id, threads=threads)
        with self._lock:
            self._sessions[key] = session
            while len(self._sessions) > self._most:
                self._sessions.popitem(last=False)
        return session


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

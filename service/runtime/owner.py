"""A thread that owns a session, and the queue through which work comes to it: what the batcher and the tiles have in common."""

from __future__ import annotations

import asyncio
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from service.errors import ServiceError

T = TypeVar("T")
R = TypeVar("R")


class Owner(ABC, Generic[T]):
    """The thread and its queue."""

    def __init__(self, name: str) -> None:
        """Prepare; `start` begins.

        Args:
            name: of the thread.
        """
        self._arrivals: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._own, name=name, daemon=True)

    @abstractmethod
    def _own(self) -> None:
        """Do what comes until None has come and nothing is left; on the thread."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def retire(self) -> None:
        """Let the thread finish what is queued and end; nothing may be queued after. Does not block, and can be called anywhere."""
        self._arrivals.put(None)

    def stop(self) -> None:
        """Let the thread finish what is queued and end; blocks until it has."""
        self.retire()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread is there to answer."""
        return self._thread.is_alive()


def settle(results: Sequence[tuple[asyncio.Future[R], R | ServiceError]]) -> None:
    """Hand results to the event loop that waits for them, all of one loop; a loop that is gone has nobody waiting."""
    loop = results[0][0].get_loop()

    def deliver() -> None:
        for future, result in results:
            if future.done():
                continue
            if isinstance(result, ServiceError):
                future.set_exception(result)
            else:
                future.set_result(result)

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)


class Retiring(Protocol):
    """What has threads that are to end when they have nothing to do."""

    def retire(self) -> None:
        """Say so; does not block."""


def retire_all(queues: Sequence[Retiring]) -> None:
    """Let threads end; called when their model is gone, by whichever thread held it last."""
    for each in queues:
        each.retire()

"""What the endpoints share: settings, models, decoder threads, and whether the process is leaving."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fastapi import Request

from service.runtime.repository import Repository
from service.settings import Settings


@dataclass
class State:
    """One for each app.

    Attributes:
        settings: checked.
        repository: loaded and warm.
        draining: SIGTERM has come: ready says 503, answers go on.
        decoders: threads that decode images; decoding releases the GIL.
    """

    settings: Settings
    repository: Repository
    draining: bool = False
    decoders: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        threads = self.settings.decode_threads or len(os.sched_getaffinity(0))
        self.decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome: not leaving, and every model has its thread."""
        return not self.draining and all(model.alive for model in self.repository.models.values())


async def get_state(request: Request) -> State:
    """FastAPI dependency: the app's state. A coroutine, because FastAPI sends plain functions to a thread and back."""
    state: State = request.app.state.poolserve
    return state

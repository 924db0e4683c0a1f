"""What the endpoints share: settings, models, decoder threads, and whether the process is leaving."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fastapi import Request

from service.api.parameters import array_names
from service.api.turns import Turns
from service.codecs.oip.declared import Limits
from service.cores import available_cores
from service.reader.reader import Reader
from service.runtime.admission import Admission
from service.runtime.control import Control
from service.runtime.pooling.pooler import Pooler
from service.runtime.repository import Repository
from service.runtime.statistics import Statistics
from service.settings import Settings

_POOL_RATE = 1e8
"""Cells per second, until it is measured."""


@dataclass
class State:
    """One for each app.

    Attributes:
        settings: checked.
        repository: loaded and warm.
        control: what changes it.
        draining: SIGTERM has come: ready says 503, answers go on.
        decoders: threads that decode images; decoding releases the GIL.
        pooler: runs the operators, where the models run.
        pool_admission: its queue; work is counted in cells.
        pool_statistics: what the operators have done, as the protocol counts it.
        poolers: threads that read and pool large tensors; as many as cores.
        reader: reads JSON beside this process; None where it is not to.
        turns: on the event loop, for large JSON.
    """

    settings: Settings
    repository: Repository
    draining: bool = False
    control: Control = field(init=False)
    decoders: ThreadPoolExecutor = field(init=False)
    pooler: Pooler = field(init=False)
    pool_admission: Admission = field(init=False)
    pool_statistics: Statistics = field(init=False)
    poolers: ThreadPoolExecutor = field(init=False)
    reader: Reader | None = field(init=False)
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.control = Control(self.settings, self.repository)
        cores = available_cores()
        self.decoders = ThreadPoolExecutor(self.settings.decode_threads or cores, thread_name_prefix="decode")
        self.pooler = Pooler(self.settings, self.repository.provider)
        self.pool_admission = Admission(_POOL_RATE, max_waiting=self.settings.max_queue)
        self.pool_statistics = Statistics()
        self.poolers = ThreadPoolExecutor(cores, thread_name_prefix="pool")
        wanted = self.settings.json_reader and cores > self.settings.workers
        limits = Limits(self.settings.max_tensor_elements, self.settings.max_images)
        self.reader = Reader(limits=limits, names=array_names()) if wanted and Reader.possible else None
        self.turns = Turns(self.reader)

    @property
    def ready(self) -> bool:
        """Whether new requests are welcome: not leaving, and every version that is served has its thread."""
        return not self.draining and all(model.alive for model in self.repository.served)


async def get_state(request: Request) -> State:
    """FastAPI dependency: the app's state. A coroutine, because FastAPI sends plain functions to a thread and back."""
    state: State = request.app.state.poolserve
    return state

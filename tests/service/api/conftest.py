"""A state for requests without a server; and memory of one file's applications is given back before the next one's."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import fastapi.dependencies.models
import pytest

from service.api.state import State
from service.runtime.repository import Repository
from service.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Let applications go: FastAPI remembers of every dependency what kind of function it is, and with it its application."""
    yield
    for remembered in vars(fastapi.dependencies.models).values():
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()
    gc.collect()  # by itself it looks at old objects rarely, the more of them the rarer: a run of all tests grew to 14 GB


@pytest.fixture
def state(model_folder: Path) -> Iterator[State]:
    """Small limits, for the hot road."""
    settings = Settings(
        models=model_folder, provider="cpu", max_body_bytes=400_000, body_timeout_s=0.05, max_queue=2, json_reader=False
    )  # each request has an event loop of its own
    made = State(settings, Repository.load(settings))
    yield made
    made.decoders.shutdown()
    made.poolers.shutdown()

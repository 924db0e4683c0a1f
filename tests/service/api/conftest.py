"""Memory of one file's applications is given back before the next one's."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import fastapi.dependencies.models
import pytest


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Let applications go: FastAPI remembers of every dependency what kind of function it is, and with it its application."""
    yield
    for remembered in vars(fastapi.dependencies.models).values():
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()
    gc.collect()  # by itself it looks at old objects rarely, the more of them the rarer: a run of all tests grew to 14 GB

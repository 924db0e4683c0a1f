"""One pooler for all tests of pooling, and the shortest way to use it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from service.runtime.pooling.pooler import Pooler
from service.runtime.pooling.prepared import Pooled
from service.settings import Settings

Pool = Callable[..., Pooled]


@pytest.fixture(scope="session")
def pooler() -> Pooler:
    return Pooler(Settings(), "cpu")


@pytest.fixture(scope="session")
def pool(pooler: Pooler) -> Pool:
    """pool(x, op, action, arrays, **parameters)."""

    def run(
        x: np.ndarray,
        op: str,
        action: str = "pool",
        arrays: dict[str, np.ndarray] | None = None,
        **parameters: object,
    ) -> Pooled:
        course = pooler.prepare(action, op, parameters, arrays or {}, x.shape, x.dtype)  # type: ignore[arg-type]
        return course.run(x, time.monotonic() + 60)

    return run

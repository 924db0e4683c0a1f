"""Memory of one file's applications is given back before the next one's: sessions hang in rings that only a collection ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()  # by itself it looks at old objects rarely, the more of them the rarer: a run of all tests grew to 14 GB

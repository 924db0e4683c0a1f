"""Readers as processes, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from service.codecs.oip.declared import Limits
from service.codecs.tensors.members import Members
from service.reader.reader import Reader

LIMIT_S = 60


def run(course: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await course

    asyncio.run(limited())


async def until(said: Callable[[], object]) -> None:
    while not said():
        await asyncio.sleep(0.002)


@asynccontextmanager
async def started(*, max_elements: int, names: Collection[str]) -> AsyncIterator[Reader]:
    """A reader that is ready: both slots are free."""
    reader = Reader(limits=Limits(max_elements, 64), names=names)
    reader.want()
    assert reader.take() is None  # not ready yet
    try:
        await until(lambda: reader._free)
        yield reader
    finally:
        reader.close()
        assert reader.pid is None


def taken(reader: Reader) -> int:
    """Take a slot, which must be free."""
    number = reader.take()
    assert number is not None
    return number


def same(some: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return some.keys() == others.keys() and all(
        (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())
        for array, other in ((array, others[name]) for name, array in some.items())
    )


def assert_alike(some: Members, other: Members) -> None:
    """Both are what one request was read to."""
    assert some.names == other.names
    assert (some.form, some.parameters) == (other.form, other.parameters)
    assert same(some.arrays | {"tensor": some.tensor}, other.arrays | {"tensor": other.tensor})
    assert (some.ops is None) == (other.ops is None)
    for one, another in zip(some.ops or [], other.ops or [], strict=True):
        assert one.parameters == another.parameters
        assert same(one.arrays, another.arrays)

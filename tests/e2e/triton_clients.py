"""Triton's own clients, synchronous and asyncio, called the same way; what they send and ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import np_to_triton_dtype


class Client:
    """Either client, called the same way."""

    def __init__(self, module: Any, url: str, run: Callable[[Any], Any]) -> None:
        self._client = module.InferenceServerClient(url)
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(getattr(self._client, name)(*args, **kwargs))


@contextmanager
def opened(kind: str, address: str) -> Iterator[Client]:
    """One of the two, "sync" or "asyncio"."""
    if kind == "sync":
        made = Client(triton, address, lambda value: value)
        yield made
        made.close()
        return
    with asyncio.Runner() as runner:

        async def make() -> Client:
            return Client(triton_aio, address, runner.run)

        made = runner.run(make())
        yield made
        made.close()


def tensor(name: str, array: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    datatype = np_to_triton_dtype(array.dtype)
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


def wanted(name: str, *, binary: bool = True, classes: int = 0) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)

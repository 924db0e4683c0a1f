"""Memory that the serving process and its reader share: a request's body goes in, and what was read of it comes out."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise

MAX_BODY = 2**24
"""Bytes of a body that fits."""

COUNT = 2
"""One that is being read, and the next one, so that the reader need not wait."""

_SIZE = 4 * MAX_BODY + 2**20
"""Bytes of a slot: two of a body, as in `1,`, may come out as a float64 of eight. Pages that nothing touches take no memory."""

_KEPT = 2**22
"""Bytes of a slot that stay, for the next body."""


class Slot:
    """Room for one request at a time: for its body first, then for what was read, in its place."""

    def __init__(self, pages: mmap.mmap, start: int) -> None:
        self._pages, self._start = pages, start
        self._memory = memoryview(pages)[start : start + _SIZE]
        self._length = 0

    def put(self, *parts: bytes | memoryview) -> int:
        """Copy a body in, of at most MAX_BODY bytes, one part behind the other. Returns how many bytes it has.

        Raises:
            ValueError: the slot is too small.
        """
        at = 0
        for part in parts:
            self._memory[at : at + len(part)] = part
            at += len(part)
        self._length = at
        return at

    def body(self, length: int) -> memoryview:
        """Give the body that was put in, of so many bytes, where it lies."""
        return self._memory[:length]

    def put_result(self, result: object) -> None:
        """Write anything that can be pickled; arrays as they lie in memory (pickle's protocol 5, PEP 574).

        Raises:
            ValueError: it is too large.
        """
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(stream), *(buffer.raw() for buffer in buffers)]
        lengths = struct.pack(f"<{1 + len(parts)}Q", len(parts), *map(len, parts))
        self.put(lengths, *parts)

    def result(self) -> object:
        """Read what `put_result` has written. Copies: arrays have memory of their own."""
        (count,) = struct.unpack_from("<Q", self._memory)
        lengths = struct.unpack_from(f"<{count}Q", self._memory, 8)
        bounds = accumulate(lengths, initial=8 + 8 * count)
        stream, *buffers = (self._memory[a:b] for a, b in pairwise(bounds))
        return pickle.loads(stream, buffers=map(bytearray, buffers))

    def trim(self) -> None:
        """Give back what a large request that was put in has taken, for both processes; what is in the slot is lost."""
        if 4 * self._length > _KEPT:
            self._pages.madvise(mmap.MADV_REMOVE, self._start + _KEPT, _SIZE - _KEPT)


@contextmanager
def created() -> Iterator[int]:
    """Make memory for all slots; nothing of it is in the file system.

    Yields:
        A file descriptor, which the other process inherits; it is closed then. The memory stays as long as it is mapped.
    """
    descriptor = os.memfd_create("poolserve-reader")
    try:
        os.ftruncate(descriptor, COUNT * _SIZE)
        yield descriptor
    finally:
        os.close(descriptor)


def attach(descriptor: int) -> list[Slot]:
    """Map the memory that `created` made."""
    pages = mmap.mmap(descriptor, COUNT * _SIZE)
    return [Slot(pages, number * _SIZE) for number in range(COUNT)]

"""The C library's heap: how it is shared, and what is free in it. Nothing about Python's own objects belongs here."""

from __future__ import annotations

import ctypes
import sys

from service.cores import available_cores

_M_ARENA_MAX = -8  # of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_KEPT = 2**26
_LARGE = 2**25


def keep() -> None:
    """Keep what requests need again and again: up to 64 MiB free at the end of a thread's heap, for blocks of up to 32 MiB.

    By itself glibc keeps twice the largest block that was freed, up to as much. Reading JSON takes a little more than that, at
    any size: of 2 MB, 3000 pages came anew with each request, which took 3 of its 10 ms.
    Larger blocks are the system's once they are free. Elsewhere than with glibc it does nothing.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _KEPT)


def trim() -> None:
    """Give free pages back, where the C library is glibc; elsewhere it does nothing.

    Loading a model leaves its file, its graphs and their serialised forms behind as free pages, which glibc keeps because
    something small was allocated after them: 100 to 150 MB of 400 with a ResNet-18.
    """
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)


def share_arenas() -> None:
    """Have threads share the heap's arenas, where the C library is glibc; before there are threads.

    It gives each new thread an arena of its own, up to eight for each core, and what is free in one does not serve another. Where
    models come and go their threads do: with a swap a second under load 97 versions took a process from 280 to 430 MB, and with two
    arenas it stayed between 210 and 310.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, max(2, available_cores() // 2))

"""The C library's heap: what is free in it, given back to the system. Nothing about Python's own objects belongs here."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Give free pages back, where the C library is glibc; elsewhere it does nothing.

    Loading a model leaves its file, its graphs and their serialised forms behind as free pages, which glibc keeps because
    something small was allocated after them: 100 to 150 MB of 400 with a ResNet-18.
    """
    if sys.platform == "linux":
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if malloc_trim is not None:
            malloc_trim(0)

"""A long text in pieces of about a megabyte: none takes long to make, and the whole need not lie in memory twice."""

from __future__ import annotations

_SIZE = 2**20
"""Bytes from which on a piece is finished: a thousand of them are a gigabyte, and each is one more message to the server."""


class Pieces:
    """Text that is added to at its end."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._finished: list[bytes] = []
        self._pending: list[bytes | memoryview] = []
        self._length = 0

    def add(self, *texts: bytes | memoryview) -> None:
        """Add texts, one behind the other."""
        self._pending += texts
        self._length += sum(map(len, texts))
        if self._length >= _SIZE:
            self._finish()

    def _finish(self) -> None:
        self._finished.append(b"".join(self._pending))
        self._pending, self._length = [], 0

    def taken(self) -> list[bytes]:
        """Give the pieces, at least one; what is added then is a new text's."""
        if self._length or not self._finished:
            self._finish()
        finished, self._finished = self._finished, []
        return finished

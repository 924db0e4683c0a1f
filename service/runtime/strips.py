"""Overlapping strips of a picture that comes row by row: what two strips share is kept, nothing else is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from service.codecs.header import Pixels
from service.codecs.rows import Rows


def strips(rows: Rows, bounds: Sequence[tuple[int, int]]) -> Iterator[Pixels]:
    """Give strips from top to bottom.

    Args:
        rows: the picture.
        bounds: (start, stop) of each strip, in stored rows, half open; starts and stops ascend, none begins behind the end of
            the one before, the last ends with the picture.

    Yields:
        uint8 (stop − start, W, C), W as stored; a view that the next strip overwrites.

    Raises:
        ValueError: the picture has fewer rows than its header says.
        Whatever reading its rows raises.
    """
    longest = max(stop - start for start, stop in bounds)
    buffer = np.empty((longest, rows.header.stored_size[0], rows.channels), np.uint8)
    bands = iter(rows.bands)
    rest = buffer[:0]  # of a band
    first, end = 0, 0  # rows of the picture that the buffer holds
    for start, stop in bounds:
        _shift(buffer[: end - first], start - first)
        first = start
        while end < stop:
            if not len(rest):
                band = next(bands, None)
                if band is None:
                    raise ValueError(f"expected {bounds[-1][1]} rows, got {end}")
                rest = band
            taken = rest[: stop - end]
            buffer[end - first : end - first + len(taken)] = taken
            rest = rest[len(taken) :]
            end += len(taken)
        yield buffer[: stop - start]
    for _ in bands:  # damage behind the last row shows, too
        pass


def _shift(held: Pixels, by: int) -> None:
    """Move rows up in place, in pieces that do not overlap: NumPy would copy those that do."""
    for start in range(by, len(held), max(1, by)):
        piece = held[start : start + by]
        held[start - by : start - by + len(piece)] = piece

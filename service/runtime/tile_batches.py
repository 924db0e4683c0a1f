"""An image's tiles as the trunk takes them: batches of canvases of one shape, in the order in which its rows come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from service.codecs.header import Pixels, upright
from service.codecs.rows import Rows
from service.runtime.grid import Grid, Span
from service.runtime.strips import strips


class Batch(NamedTuple):
    """Some tiles of one image.

    Attributes:
        pixels: uint8 (N,H,W,C); the next batch overwrites it.
        extents: int64 (N,4), as graphs.anysize.plan.EXTENTS.
        owned: int64 (N,4), as graphs.anysize.plan.OWNED.
        tiles: how many there are, at most N: what lies behind them only keeps the shape.
    """

    pixels: Pixels
    extents: np.ndarray
    owned: np.ndarray
    tiles: int


def tile_batches(rows: Rows, grid: Grid, batch_pixels: int) -> Iterator[Batch]:
    """Decode an image strip by strip and lay its tiles out, turned as they are displayed.

    A strip is as high as a canvas, in rows of the file: where the picture is to be turned by a quarter (EXIF orientation 5…8),
    these are its columns, and where it is upside down the last ones come first.

    Args:
        rows: the image.
        grid: its tiles.
        batch_pixels: of the canvases of a batch, if it has more than one.

    Yields:
        Every tile once; all batches have one shape.

    Raises:
        Whatever reading its rows raises.
    """
    orientation = rows.header.orientation
    turned, backwards = orientation >= 5, orientation in {3, 4, 6, 7}
    outer, inner = (grid.columns, grid.rows) if turned else (grid.rows, grid.columns)
    size = _batch_size(inner.count, batch_pixels // (grid.rows.length * grid.columns.length))
    canvases = np.zeros((size, grid.rows.length, grid.columns.length, rows.channels), np.uint8)  # (N,H,W,C)
    spans = outer.spans()[::-1] if backwards else outer.spans()
    bounds = [(outer.size - s.stop, outer.size - s.start) if backwards else (s.start, s.stop) for s in spans]
    for along, strip in zip(spans, strips(rows, bounds), strict=True):
        picture = upright(strip, orientation)  # (H,W,C), all of one axis, `along` of the other
        across = inner.spans()
        for first in range(0, len(across), size):
            tiles = [(other, along) if turned else (along, other) for other in across[first : first + size]]
            for canvas, (y, x) in zip(canvases, tiles, strict=False):
                part = picture[y.start : y.stop] if turned else picture[:, x.start : x.stop]
                canvas[: part.shape[0], : part.shape[1]] = part
            yield Batch(canvases, *_places(tiles, size, grid), len(tiles))


def _batch_size(tiles: int, most: int) -> int:
    """Spread tiles over as many batches as are needed, evenly."""
    batches = -(-tiles // max(1, most))
    return -(-tiles // batches)


def _places(tiles: Sequence[tuple[Span, Span]], size: int, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    filled = [*tiles, *([tiles[-1]] * (size - len(tiles)))]
    extents = [(y.start, x.start, grid.rows.size, grid.columns.size) for y, x in filled]
    owned = [(y.own_start, x.own_start, y.own_stop, x.own_stop) for y, x in filled]
    return np.array(extents, np.int64), np.array(owned, np.int64)

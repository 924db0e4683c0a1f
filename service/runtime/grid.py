"""How an image is cut into tiles: arithmetic only.

Along an axis, tiles are canvases of one length L whose origins lie one step apart. A tile gives what it owns exactly where it
sees `before` pixels before that and `after` pixels behind; at the image's own border it needs none. So with o = before + after

    origin_i = i · step              step = L − o, a multiple of the alignment
    owned_i  = [origin_i + before (0 for the first), origin_{i+1} + before (the size for the last))
    n        = ⌈(size − o) / step⌉   tiles; 1 where the size is not more than L

and every pixel is owned once. The cost is the canvases' pixels, the halos counted as often as they are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from graphs.anysize.plan import TrunkGeometry

_GROWTH = 1.03
"""From one height of tiles that is tried to the next; it costs at most so much to miss the best one."""


class Span(NamedTuple):
    """One tile along one axis, half open, in the image's pixels.

    Attributes:
        start: of its canvas.
        stop: of the image within its canvas.
        own_start: of what it owns.
        own_stop: likewise.
    """

    start: int
    stop: int
    own_start: int
    own_stop: int


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis.

    Attributes:
        size: of the image.
        length: L, of each canvas.
        step: between canvases.
        before: of the halo, a multiple of the alignment.
        count: n.
    """

    size: int
    length: int
    step: int
    before: int
    count: int

    def spans(self) -> list[Span]:
        """Give every tile, in order."""
        last = self.count - 1
        return [
            Span(
                i * self.step,
                min(self.size, i * self.step + self.length),
                i * self.step + self.before if i else 0,
                (i + 1) * self.step + self.before if i < last else self.size,
            )
            for i in range(self.count)
        ]


@dataclass(frozen=True)
class Grid:
    """An image's tiles: every row of them with every column."""

    rows: Axis
    columns: Axis

    @property
    def tiles(self) -> int:
        """How many there are."""
        return self.rows.count * self.columns.count

    @property
    def canvas_pixels(self) -> int:
        """Pixels of all canvases together: the work."""
        return self.tiles * self.rows.length * self.columns.length


class TooLarge(ValueError):
    """No tile is small enough; says which limit is in the way."""


def cut(
    height: int, width: int, geometry: TrunkGeometry, *, max_canvas: int, max_strip: int, stored_as_columns: bool
) -> Grid:
    """Cut an image so that the work is least.

    Args:
        height: pixels, as displayed.
        width: likewise.
        geometry: of the trunk.
        max_canvas: pixels of one canvas.
        max_strip: pixels of the image that are held at once: as wide as it is stored, and as high as a canvas.
        stored_as_columns: the rows of the file are the displayed picture's columns (EXIF orientation 5…8).

    Raises:
        TooLarge: the smallest tile with its halo passes one of the limits.
    """
    top, left, bottom, right = geometry.halo
    down, across = geometry.alignment
    best: Grid | None = None
    for step in _steps(down, height):
        rows = _axis(height, step, top, bottom, down)
        if rows.length * (1 if stored_as_columns else width) > (max_canvas if stored_as_columns else max_strip):
            break
        most = max_canvas // rows.length
        if stored_as_columns:
            most = min(most, max_strip // height)
        wide_step = width if width <= most else (most - _up(left, across) - right) // across * across
        if wide_step < 1:
            break
        columns = _axis(width, wide_step, left, right, across)
        grid = Grid(rows, columns)
        if best is None or grid.canvas_pixels < best.canvas_pixels:
            best = grid
    if best is None:
        raise TooLarge(
            f"an image of {width}×{height} pixels needs tiles of {_least(width, left, right, across)}×"
            f"{_least(height, top, bottom, down)} pixels or more (what the network sees around each part of it included);"
            f" at most {max_canvas} pixels are run at once, and {max_strip} of the image are held"
        )
    return best


def _steps(alignment: int, size: int) -> Iterator[int]:
    """Multiples of the alignment, each a little larger than the one before, up to the first that is as large as the size."""
    units = 1
    while True:
        yield units * alignment
        if units * alignment >= size:
            return
        units = max(units + 1, int(units * _GROWTH))


def _axis(size: int, step: int, before: int, after: int, alignment: int) -> Axis:
    """Lay tiles of at most this step, made as equal as the alignment allows."""
    before = _up(before, alignment)
    inner = size - before - after
    count = -(-inner // step)
    if count <= 1:
        return Axis(size, size, size, before, 1)
    step = _up(-(-inner // count), alignment)
    return Axis(size, step + before + after, step, before, -(-inner // step))


def _least(size: int, before: int, after: int, alignment: int) -> int:
    return min(size, _up(before, alignment) + after + alignment)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

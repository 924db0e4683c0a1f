"""One axis of a grid: for each region the cells it reads there, as arithmetic progressions clipped to the plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Taps(NamedTuple):
    """The cells of a run of r regions on one axis.

    Attributes:
        position: int64 (r, m), 0 where absent.
        weight: float64 or bool (r, m), 0 where absent; None: all present with weight 1.
        delta: float64 (r, m), distance in cells from the region's centre, with sign.
        half: float64 (r, 1), half the region's extent in cells.
    """

    position: NDArray[np.int64]
    weight: NDArray[np.float64] | NDArray[np.bool_] | None
    delta: NDArray[np.float64] | None = None
    half: NDArray[np.float64] | None = None


class Axis(Protocol):
    """What a grid needs of each axis.

    Attributes:
        width: m, the most cells that a region reads.
        count: int64 (o,), cells of each region.
    """

    @property
    def width(self) -> int:
        """The most cells that a region reads."""

    @property
    def count(self) -> NDArray[np.int64]:
        """Cells of each region, int64 (o,)."""

    def taps(self, begin: int, end: int, centred: bool) -> Taps:
        """The cells of the regions from `begin` to before `end`; with `centred`, their distances too."""


@dataclass(frozen=True, eq=False)
class Progressions:
    """Region i reads the cells origin[i] + step·(0 … length[i] − 1), as far as they lie in the plane.

    So a kernel of 10⁹ on a plane of four cells costs four cells. Distances are from the centre of the unclipped progression.

    Attributes:
        cells: of the plane on this axis.
        origin: int64 (o,), may be negative.
        length: int64 (o,) or (1,), at least 1.
        step: at least 1; the caller keeps origin + step · length within int64.
        skipped: int64 (o,), members that lie before the plane.
        count: int64 (o,), members that lie in it.
        width: the most of them.
    """

    cells: int
    origin: NDArray[np.int64]
    length: NDArray[np.int64]
    step: int = 1
    skipped: NDArray[np.int64] = field(init=False)
    count: NDArray[np.int64] = field(init=False)
    width: int = field(init=False)

    def __post_init__(self) -> None:
        skipped = np.maximum(-(self.origin // self.step), 0)
        inside = np.minimum(self.length, -((self.origin - self.cells) // self.step))
        count = np.maximum(inside - skipped, 0)
        object.__setattr__(self, "skipped", skipped)
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "width", max(int(count.max()), 1))

    def taps(self, begin: int, end: int, centred: bool) -> Taps:
        """The cells of the regions from `begin` to before `end`; with `centred`, their distances too."""
        member = np.arange(self.width)
        count = self.count[begin:end, None]
        origin = self.origin[begin:end, None]
        first = origin + self.step * self.skipped[begin:end, None]
        position = first + self.step * member
        present = None
        if count.min() < self.width:
            present = member < count
            position = position * present
        if not centred:
            return Taps(position, present)
        length = np.broadcast_to(self.length, self.origin.shape)[begin:end, None]
        centre = origin + self.step * (length - 1) / 2
        seen = first + self.step * np.minimum(
            member, np.maximum(count - 1, 0)
        )  # absent ones repeat the last that is there
        return Taps(position, present, seen - centre, self.step * length / 2)

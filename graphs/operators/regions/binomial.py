"""Windows with binomial weights, what BlurPool averages over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.axis import Taps
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.numbers import checked_plane, integer, per_axis

BORDERS = ("reflect", "zero", "replicate")

LARGEST_FILTER = 64
"""Beyond it the binomial coefficients' sum passes 2⁶³."""


@dataclass(frozen=True, eq=False)
class Binomial:
    """One axis: window i reads i·stride − before + (0 … taps − 1), positions outside the plane replaced as `border` says.

    A cell can be read twice by one window, so only sums and averages have a meaning.

    Attributes:
        cells: of the plane on this axis.
        output: number of windows.
        stride: cells between windows.
        before: cells of padding before the plane.
        weights: float64 (taps,).
        border: reflect (without repeating the edge), zero or replicate.
        width: the taps.
        count: int64 (output,), taps that read a cell.
    """

    cells: int
    output: int
    stride: int
    before: int
    weights: NDArray[np.float64]
    border: str
    width: int = field(init=False)
    count: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        origin = np.arange(self.output) * self.stride - self.before
        inside = np.minimum(origin + self.weights.size, self.cells) - np.maximum(origin, 0)
        count = np.maximum(inside, 0) if self.border == "zero" else np.full(self.output, self.weights.size)
        object.__setattr__(self, "width", self.weights.size)
        object.__setattr__(self, "count", count)

    def taps(self, begin: int, end: int, centred: bool) -> Taps:
        """The cells of the windows from `begin` to before `end` and their weights."""
        position = np.arange(begin, end)[:, None] * self.stride - self.before + np.arange(self.width)
        if self.border == "reflect":
            position = np.abs(position)
            position = np.minimum(position, 2 * (self.cells - 1) - position)
        inside = (position >= 0) & (position < self.cells)
        position = np.clip(position, 0, self.cells - 1)
        if self.border == "zero":
            return Taps(position * inside, self.weights * inside)
        return Taps(position, np.broadcast_to(self.weights, position.shape))


def binomial(
    plane: Sequence[int],
    size: int = 4,
    stride: int | Sequence[int] = 2,
    *,
    border: str = "reflect",
    padding: int | Sequence[int] | None = None,
) -> Grid:
    """Binomial windows (Zhang 2019, arXiv 1904.11486): [1, 1], [1, 2, 1], [1, 3, 3, 1] …, divided by their sum.

    With `border` zero the padding counts, as it does in a convolution.

    Args:
        plane: sizes of the pooled axes.
        size: taps on each axis, 1 to `LARGEST_FILTER`.
        stride: at least 1.
        border: "reflect", "zero" or "replicate".
        padding: cells before and after, at most size + stride; None: ⌊(size − 1) / 2⌋ before and ⌈(size − 1) / 2⌉ after, which
            gives ⌈L / stride⌉ windows.

    Raises:
        RegionError: a number outside its range, no window fits, or the plane is too small to be reflected: it needs more cells
            than the padding. There is no silent change to another border then, as it would change the numbers.
    """
    sizes = checked_plane(plane)
    taps = integer("size", size, 1, LARGEST_FILTER)
    strides = per_axis("stride", stride, len(sizes), 1)
    if border not in BORDERS:
        raise RegionError(f"border: expected one of {', '.join(BORDERS)}")
    if padding is None:
        pads = [((taps - 1) // 2, taps // 2)] * len(sizes)
    else:
        pads = [(pad, pad) for pad in per_axis("padding", padding, len(sizes), 0)]
    weights = np.array([math.comb(taps - 1, tap) for tap in range(taps)], np.float64)
    axes = []
    for cells, step, pad in zip(sizes, strides, pads, strict=True):
        if max(pad) > taps + step:
            raise RegionError(f"padding: expected at most size + stride = {taps + step}, got {max(pad)}")
        if border == "reflect" and cells <= max(pad):
            raise RegionError(
                f"border: reflecting {max(pad)} cells of padding needs an axis of at least {max(pad) + 1} cells, the plane has "
                f'{cells}; "replicate" and "zero" take any size'
            )
        output = (cells + sum(pad) - taps) // step + 1
        if output < 1:
            raise RegionError(
                f"size: a window of {taps} cells is larger than the plane's {cells} with padding {pad[0]} + {pad[1]}"
            )
        axes.append(Binomial(cells, output, step, pad[0], weights, border))
    return Grid(sizes, tuple(axes), tuple(np.full(axis.output, 2.0 ** (taps - 1)) for axis in axes))

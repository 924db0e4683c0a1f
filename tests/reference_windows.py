"""Pooling in plain words: regions as lists of cells, statistics as formulas in float64. Slow; shares nothing with graphs/."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Region:
    """Flat cells of the plane in row-major order, their weights, and what an average divides by (None: the weights' sum)."""

    cells: list[int]
    weights: list[float]
    divisor: float | None = None


@dataclass(frozen=True)
class Regions:
    shape: tuple[int, ...]
    regions: list[Region]


def _flat(plane: Sequence[int], axes: Sequence[Sequence[int]]) -> list[int]:
    return [int(np.ravel_multi_index(place, plane)) for place in itertools.product(*axes)]


def _grid(plane: Sequence[int], lines: Sequence[Sequence[list[int]]], divisors: Sequence[float | None]) -> Regions:
    """Every combination of one list of positions per axis."""
    regions = []
    for number, axes in enumerate(itertools.product(*lines)):
        cells = _flat(plane, axes)
        regions.append(Region(cells, [1.0] * len(cells), divisors[number] if divisors else None))
    return Regions(tuple(len(line) for line in lines), regions)


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's formula."""
    total = max((math.ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def windows(
    plane: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    divisor_override: int | None = None,
) -> Regions | None:
    """Windows by PyTorch's rules; None where there is none."""
    lines, taps = [], []
    for size, k, s, (before, after), d in zip(plane, kernel, stride, pads, dilation, strict=True):
        room = (size + before + after - d * (k - 1) - 1) / s
        count = (math.ceil(room) if ceil_mode else math.floor(room)) + 1
        if ceil_mode and (count - 1) * s >= size + before:
            count -= 1
        if count < 1:
            return None
        reads = [[i * s - before + d * j for j in range(k)] for i in range(count)]
        lines.append([[place for place in read if 0 <= place < size] for read in reads])
        taps.append([sum(place < size + after for place in read) for read in reads])
    divisors: list[float | None] = []
    if divisor_override is not None:
        divisors = [float(divisor_override)] * math.prod(map(len, lines))
    elif count_include_pad:
        divisors = [float(math.prod(counts)) for counts in itertools.product(*taps)]
    return _grid(plane, lines, divisors)


def adaptive(plane: Sequence[int], output: Sequence[int]) -> Regions:
    return _grid(
        plane,
        [
            [list(range(i * size // n, math.ceil((i + 1) * size / n))) for i in range(n)]
            for size, n in zip(plane, output, strict=True)
        ],
        [],
    )


def pyramid(plane: Sequence[int], levels: Sequence[int]) -> Regions:
    parts = [region for level in levels for region in adaptive(plane, [level] * len(plane)).regions]
    return Regions((len(parts),), parts)


def strips(plane: Sequence[int]) -> Regions:
    height, width = plane
    parts = adaptive(plane, (height, 1)).regions + adaptive(plane, (1, width)).regions
    return Regions((len(parts),), parts)


def whole(plane: Sequence[int]) -> Regions:
    cells = list(range(math.prod(plane)))
    return Regions((), [Region(cells, [1.0] * len(cells))])


def segments(labels: np.ndarray, count: int) -> Regions:
    regions = []
    for label in range(count):
        cells = [int(cell) for cell in np.flatnonzero(labels.reshape(-1) == label)]
        regions.append(Region(cells, [1.0] * len(cells)))
    return Regions((count,), regions)


def weighed(regions: Regions, mask: np.ndarray) -> Regions:
    """A mask of the plane takes the place of every other divisor."""
    flat = mask.reshape(-1).astype(np.float64)
    return Regions(regions.shape, [Region(r.cells, [float(flat[c]) for c in r.cells]) for r in regions.regions])


class Weighted:
    """The cells of one region in B rows: x (B,n) and weights (B,n) of float64, 0 where a cell is absent."""

    def __init__(self, x: torch.Tensor, weights: torch.Tensor, divisor: float | None) -> None:
        self.present = weights > 0
        self.x = torch.where(self.present, x, 1.0)
        self.weights = weights
        self.size = weights.sum(-1)
        self.divisor = self.size if divisor is None else torch.full_like(self.size, divisor)

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(self.present, x * self.weights, 0.0).sum(-1)

    def first(self, sign: float) -> torch.Tensor:
        """Which cell is the largest of sign·x; of equals the first."""
        keys = torch.where(self.present, self.x.detach() * sign, -torch.inf)
        return (self.present & (keys == keys.amax(-1, keepdim=True))).int().argmax(-1, keepdim=True)

    def extreme(self, sign: float) -> torch.Tensor:
        return self.x.gather(-1, self.first(sign)).squeeze(-1)


def _lp(c: Weighted, p: float = 2.0, form: str = "sum") -> torch.Tensor:
    if p == math.inf:
        return torch.where(c.present, c.x.abs(), 0.0).amax(-1)
    zero = c.x == 0  # where the gradient is 0, as that of the whole is where all are
    total = c.sum(torch.where(zero, 0.0, torch.where(zero, 1.0, c.x).abs() ** p))
    nothing = total == 0
    powers = torch.where(nothing, 1.0, total / c.size if form == "mean" else total)
    return torch.where(nothing, 0.0, powers ** (1 / p))


def _gem(c: Weighted, p: float = 3.0, eps: float = 1e-6) -> torch.Tensor:
    return (c.sum(c.x.clamp(min=eps) ** p) / c.size) ** (1 / p)


def _lse(c: Weighted, r: float = 1.0, form: str = "mean") -> torch.Tensor:
    total = torch.logsumexp(c.x * r + c.weights.log(), -1)
    return (total - c.size.log() if form == "mean" else total) / r


def _softmax(c: Weighted, alpha: float = 1.0) -> torch.Tensor:
    return (torch.softmax(c.x * alpha + c.weights.log(), -1) * c.x).sum(-1)


def _power(c: Weighted, n: float = 1.0) -> torch.Tensor:
    positive = c.x > 0
    base = torch.where(positive, c.x, 1.0)
    weight = base**n if n else torch.ones_like(base)
    weight = torch.where(positive | (n == 0), weight, 0.0)
    return c.sum(weight * c.x.clamp(min=0)) / c.sum(weight).clamp(min=1e-300)


def _var(c: Weighted) -> torch.Tensor:
    mean = (c.sum(c.x) / c.size).unsqueeze(-1)
    return c.sum((c.x - mean) ** 2) / c.size


def _std(c: Weighted) -> torch.Tensor:
    """The root, whose gradient is 0 where the variance is (up to rounding)."""
    var = _var(c)
    flat = var <= 1e-28 * c.x.detach().abs().amax(-1) ** 2
    return torch.where(flat, 0.0, torch.where(flat, 1.0, var).sqrt())


STATISTICS: Mapping[str, Callable[..., torch.Tensor]] = {
    "max": lambda c: c.extreme(1.0),
    "min": lambda c: c.extreme(-1.0),
    "range": lambda c: c.extreme(1.0) - c.extreme(-1.0),
    "avg": lambda c: c.sum(c.x) / c.divisor,
    "sum": lambda c: c.sum(c.x),
    "lp": _lp,
    "gem": _gem,
    "lse": _lse,
    "softmax": _softmax,
    "softpool": lambda c, tau=1.0: _softmax(c, 1 / tau),
    "boltzmann": lambda c, beta=1.0: _softmax(c, beta),
    "power": _power,
    "stochastic": _power,
    "var": _var,
    "std": _std,
}
"""By the operators' names; each takes a region's cells and the operator's parameters and gives (B,)."""


def pool(
    name: str, x: torch.Tensor, regions: Regions, *, nan: str = "propagate", **parameters: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pool B planes.

    Args:
        name: of STATISTICS.
        x: (B,L) float64; gradients flow through it.
        regions: of the plane.
        nan: "propagate", or "omit": such cells have no weight, and the weights that are left divide.
        parameters: the operator's.

    Returns:
        (B,R), 0 for a region without cells; and the magnitude that rounding is relative to, (B,R): the same statistic of
        magnitudes for sums and averages, at least the largest magnitude of the region's cells for the others.
    """
    out, scale = [], []
    for region in regions.regions:
        if not region.cells:
            out.append(x.new_zeros(len(x)))
            scale.append(x.new_zeros(len(x)))
            continue
        cells = x[:, region.cells]
        weights = torch.tensor(region.weights, dtype=x.dtype).expand_as(cells)
        divisor = region.divisor
        lost = cells.isnan()
        if nan == "omit":
            weights, divisor = weights * ~lost, None
        poisoned = (lost & (weights > 0)).any(-1)
        cells = torch.where(lost, 1.0, cells)
        empty = ~(weights > 0).any(-1)
        some = torch.where(empty.unsqueeze(-1), 1.0, weights)  # so that nothing divides by 0 here
        y = STATISTICS[name](Weighted(cells, some, divisor), **parameters)
        y = torch.where(empty, 0.0, y)
        out.append(torch.where(poisoned, torch.nan, y))
        with torch.no_grad():
            sizes = cells.abs()
            at_most = torch.where(some > 0, sizes, 0.0).amax(-1)
            if name in {"avg", "sum"}:
                at_most = STATISTICS[name](Weighted(sizes, some, divisor))
            if name == "lse":  # the sum under the logarithm is near 1 and rounds by its own size, which 1/r enlarges
                at_most = at_most + 0.02 / float(str(parameters.get("r", 1.0)))
            scale.append(torch.maximum(at_most, y.abs()))
    if not out:
        return x.new_zeros((len(x), 0)), x.new_zeros((len(x), 0))
    return torch.stack(out, 1), torch.stack(scale, 1)


def pool_whole_numbers(name: str, x: np.ndarray, regions: Regions) -> np.ndarray:
    """max, min and sum of integers (B,L) → (B,R), by Python's unbounded integers; 0 for a region without cells."""
    functions: dict[str, Callable[[list[int]], int]] = {"max": max, "min": min, "sum": sum}
    rows = []
    for row in x.tolist():
        out = []
        for region in regions.regions:
            cells = [
                row[c] * int(w) if name == "sum" else row[c]
                for c, w in zip(region.cells, region.weights, strict=True)
                if w > 0
            ]
            out.append(functions[name](cells) if cells else 0)
        rows.append(out)
    kind = x.dtype if name != "sum" else np.dtype("uint64" if x.dtype == np.uint64 else "int64")
    return np.array(rows, kind).reshape(len(x), len(regions.regions))


def counts(regions: Regions) -> np.ndarray:
    found = [sum(w > 0 for w in region.weights) for region in regions.regions]
    return np.array(found, np.int64).reshape(regions.shape)

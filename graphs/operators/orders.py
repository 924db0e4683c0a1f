"""Order statistics: what becomes of the values of a region once they are sorted.

A cell of any weight above 0 counts once here: an order has places, not shares.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from graphs.operators.cells import LOWEST, Cells
from graphs.operators.expression import Tensor, constant, emit, where
from graphs.operators.functions import nonzero, top_k, widen
from graphs.operators.operator import FEED, Operator, Parameters, Reference

_FUZZ = 1e-3
"""A share of the cells that comes this near to a whole number is it: 0.07 · 100 is a little more than 7 in floating point."""


def _counted(k: float) -> float:
    if k > 1 and k != int(k):
        raise ValueError(f"expected a whole number of cells, or a share below 1, got {k:g}")
    return k


class TopK(Parameters):
    """Parameters of `topk`."""

    k: float = Field(
        0.25,
        gt=0,
        le=2**31,
        description="How many of the largest: a number of cells from 1, or below 1 a share of the region's, rounded up.",
        json_schema_extra=FEED,
    )

    _whole = field_validator("k")(_counted)


class Median(Parameters):
    """Parameters of `median`."""

    convention: Literal["lower", "mean", "upper"] = Field(
        "lower",
        description="Of an even number of values: the lower middle one (PyTorch), their mean (NumPy), the upper.",
    )


class Quantile(Parameters):
    """Parameters of `quantile`."""

    q: float = Field(
        0.5, ge=0, le=1, description="0 is the minimum, 0.5 the median, 1 the maximum.", json_schema_extra=FEED
    )


class Rank(Parameters):
    """Parameters of `rank`."""

    weighting: Literal["average", "weighted"] = Field(
        "average", description="`average` of the t largest (RAP), or weights a(1 − a)^(rank − 1) for all (RWP)."
    )
    t: float = Field(
        2.0,
        gt=0,
        le=2**31,
        description="For `average`: how many of the largest; below 1 a share of the region's cells, rounded up.",
        json_schema_extra=FEED,
    )
    a: float = Field(0.5, gt=0, le=1, description="For `weighted`: the weight of the largest.", json_schema_extra=FEED)

    _whole = field_validator("t")(_counted)


class Ordinal(Parameters):
    """Parameters of `ordinal`."""

    ranks: Any = Field(
        description="Tensor (n,): weights of the largest value, the next …, at least 0; divided by the sum of those that a region "
        "has cells for.",
        json_schema_extra=FEED,
    )

    @field_validator("ranks")
    @classmethod
    def _positive(cls, ranks: Any) -> Any:
        if np.asarray(ranks).dtype.kind not in "uif":
            raise ValueError("expected a tensor of numbers")
        if np.size(ranks) and not np.min(ranks) >= 0:
            raise ValueError("expected weights of at least 0")
        return ranks


def _present(cells: Cells) -> Tensor:
    """How many cells each region has, at least 1: (1,r,1), or a scalar."""
    return cells.count().at_least(1.0)


def _sorted(cells: Cells, count: Tensor | None = None) -> Tensor:
    """The `count` largest values of each region (all, by default), in descending order; absent cells come last.

    count: a scalar of the arithmetic's dtype, at least 1.
    """
    length = cells.total()
    k = length if count is None else emit("Min", (count.cast(np.int64), length), ())
    return top_k(cells.fill(cells.values, LOWEST), k)


def _places(values: Tensor) -> Tensor:
    return values.positions().cast(values.graph.dtype)


def _share(k: Tensor, count: Tensor) -> Tensor:
    """⌈k·count⌉ for a share k below 1, else k; from 1 to count."""
    part = emit("Ceil", (k * count - _FUZZ,)).at_least(1.0)
    wanted = where(k.less(1.0), part, k)
    return where(wanted.greater(count), count, wanted)


def _largest_mean(cells: Cells, k: Tensor) -> Tensor:
    length = cells.values.length().cast(cells.values.graph.dtype)
    values = _sorted(cells, _share(k, length))
    count = _share(k, _present(cells))
    return where(_places(values).less(count), values, 0.0).sum() / count


def _pick(values: Tensor, place: Tensor) -> Tensor:
    return where(_places(values).equal(place), values, 0.0).sum()


def _floor(x: Tensor) -> Tensor:
    return emit("Floor", (x,))


def write_topk(cells: Cells, parameters: TopK) -> Tensor:
    """The mean of the k largest; of all where a region has fewer."""
    return _largest_mean(cells, cells.parameter("k"))


def write_median(cells: Cells, parameters: Median) -> Tensor:
    """The middle value; only the upper half is sorted."""
    length = cells.values.length().cast(cells.values.graph.dtype)
    values = _sorted(cells, _floor(length / 2.0) + 1.0)
    count = _present(cells)
    lower, upper = _floor(count / 2.0), _floor((count - 1.0) / 2.0)
    if parameters.convention == "mean":
        return _pick(values, lower) * 0.5 + _pick(values, upper) * 0.5
    return _pick(values, lower if parameters.convention == "lower" else upper)


def write_quantile(cells: Cells, parameters: Quantile) -> Tensor:
    """Linear interpolation between the two values next to the place (n − 1)q (Hyndman and Fan's seventh definition, NumPy's)."""
    values = _sorted(cells)
    last = _present(cells) - 1.0
    place = last * (1.0 - cells.parameter("q"))
    before = _floor(place)
    after = where(before.less(last), before + 1.0, before)
    share = place - before
    return _pick(values, before) * (1.0 - share) + _pick(values, after) * share


def write_rank(cells: Cells, parameters: Rank) -> Tensor:
    """The mean of the t largest, or Σ a(1 − a)^(rank − 1) x."""
    if parameters.weighting == "average":
        return _largest_mean(cells, cells.parameter("t"))
    values = _sorted(cells)
    places = _places(values)
    a = cells.parameter("a")
    weights = a * (1.0 - a) ** places
    return where(places.less(_present(cells)), values * weights, 0.0).sum()


def write_ordinal(cells: Cells, parameters: Ordinal) -> Tensor:
    """Σ w_rank x / Σ w_rank over the ranks that a region has cells for; 0 where those weigh nothing."""
    ranks = cells.parameter("ranks", "W")
    given = ranks.length(0).cast(cells.values.graph.dtype)
    values = _sorted(cells, given)
    first = emit(
        "Range", (constant(ranks.graph, 0, np.int64), values.length(), constant(ranks.graph, 1, np.int64)), (False,)
    )
    weights = widen(emit("Gather", (ranks, first), (False,), axis=0), 3)
    there = _places(values).less(_present(cells))
    kept = where(there, weights, 0.0)
    return where(there, values * weights, 0.0).sum() / nonzero(kept.sum())


_SHI = Reference("Shi, Ye, Wu", 2016, "Rank-based pooling for deep convolutional neural networks")

OPERATORS = (
    Operator(
        name="topk",
        family="orders",
        summary="The average of the k largest values of each region, or of a share of them.",
        formula=r"\frac{1}{k}\sum_{j=1}^{k} x_{(j)},\quad x_{(1)} \ge x_{(2)} \ge \dots",
        keeps="the strongest responses, more robustly than the maximum",
        loses="everything below the k-th",
        write=write_topk,
        parameters=TopK,
        references=(
            Reference(
                "Durand, Thome, Cord", 2016, "WELDON: weakly supervised learning of deep convolutional neural networks"
            ),
        ),
        mergeable="the k largest (of a share: of all tiles' cells together)",
    ),
    Operator(
        name="median",
        family="orders",
        summary="The middle value of each region.",
        formula=r"x_{(\lfloor n/2 \rfloor + 1)}",
        keeps="the typical value; up to half the cells may be wrong",
        loses="peaks",
        write=write_median,
        parameters=Median,
        references=(Reference("Tukey", 1977, "Exploratory data analysis"),),
    ),
    Operator(
        name="quantile",
        family="orders",
        summary="The value below which a share q of each region lies, interpolated linearly.",
        formula=r"(1 - f)\,x_{[j]} + f\,x_{[j+1]},\quad j + f = (n - 1)q,\ x_{[0]} \le x_{[1]} \le \dots",
        keeps="one point of the distribution, from the minimum to the maximum",
        loses="the others",
        write=write_quantile,
        parameters=Quantile,
        references=(Reference("Hyndman, Fan", 1996, "Sample quantiles in statistical packages"),),
    ),
    Operator(
        name="rank",
        family="orders",
        summary="Rank-based pooling: the average of the t largest, or weights that fall with the rank.",
        formula=r"\sum_{j} w_j x_{(j)},\quad w_j = \tfrac{1}{t}[j \le t]\ \text{or}\ a(1 - a)^{j-1}",
        keeps="strong responses, by their order and not their size",
        loses="weak ones; with `weighted` the weights sum to 1 − (1 − a)ⁿ, not to 1",
        write=write_rank,
        parameters=Rank,
        references=(_SHI,),
    ),
    Operator(
        name="ordinal",
        family="orders",
        summary="A mean of the sorted values with a weight for each rank, given in the request.",
        formula=r"\frac{\sum_j w_j x_{(j)}}{\sum_j w_j},\quad w_j \ge 0",
        keeps="what the weights say: [1] is the maximum, equal ones the average of as many",
        loses="where anything was, and ranks beyond the weights",
        write=write_ordinal,
        parameters=Ordinal,
        references=(
            Reference(
                "Deliège, Istasse, Kumar, De Vleeschouwer, Van Droogenbroeck", 2021, "Ordinal pooling", "2109.01561"
            ),
        ),
        learnable=True,
        weights={"ranks": ("W",)},
    ),
)

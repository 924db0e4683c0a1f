"""Moments: how the values of a region spread, all in the biased form (divided by n), so that repeating a region changes nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor, where
from graphs.operators.functions import concatenate, nonzero
from graphs.operators.operator import Operator, Parameters, Reference


class Kurtosis(Parameters):
    """Parameters of `kurtosis`."""

    excess: bool = Field(
        False, description="Subtract 3, so that a normal distribution has 0; a region of equal values has 0 either way."
    )


class Centred(NamedTuple):
    """Deviations from the mean in units of the largest, so that no power of them overflows.

    Attributes:
        mean: (B,r,1).
        ratio: (B,r,n), from −1 to 1.
        scale: (B,r,1), the unit.
        flat: (B,r,1), true where all values are equal but for rounding.
    """

    mean: Tensor
    ratio: Tensor
    scale: Tensor
    flat: Tensor


def _centred(cells: Cells) -> Centred:
    """Subtract the mean twice: what rounding left of it the first time is gone after the second."""
    x = cells.fill(cells.values, 0.0)
    mean = cells.mean(x)
    rough = x - mean
    deviation = cells.fill(rough - cells.mean(rough), 0.0)
    largest = cells.max(deviation.detach().abs())
    eps = float(np.finfo(x.graph.dtype).eps)
    flat = ~largest.greater(mean.detach().abs() * (4 * eps))
    scale = where(flat, 1.0, nonzero(largest))
    return Centred(mean, deviation / scale, scale, flat)


def _std(cells: Cells, centred: Centred) -> Tensor:
    return cells.mean(centred.ratio * centred.ratio).sqrt() * centred.scale


def write_var(cells: Cells, parameters: Parameters) -> Tensor:
    """Σ w(x − μ)² / Σ w."""
    centred = _centred(cells)
    return cells.mean(centred.ratio * centred.ratio) * centred.scale * centred.scale


def write_std(cells: Cells, parameters: Parameters) -> Tensor:
    """The root of the variance; the gradient is 0 where it is 0."""
    return _std(cells, _centred(cells))


def write_mean_std(cells: Cells, parameters: Parameters) -> Tensor:
    """μ and σ."""
    centred = _centred(cells)
    return concatenate([centred.mean, _std(cells, centred)])


def write_skew(cells: Cells, parameters: Parameters) -> Tensor:
    """m₃ / m₂^1.5; 0 where all values are equal."""
    centred = _centred(cells)
    square = centred.ratio * centred.ratio
    second = where(centred.flat, 1.0, cells.mean(square))
    return where(centred.flat, 0.0, cells.mean(square * centred.ratio) / (second * second.sqrt()))


def write_kurtosis(cells: Cells, parameters: Kurtosis) -> Tensor:
    """m₄ / m₂², less 3 for the excess; 0 where all values are equal."""
    centred = _centred(cells)
    square = centred.ratio * centred.ratio
    second = where(centred.flat, 1.0, cells.mean(square))
    fourth = cells.mean(square * square) / (second * second)
    return where(centred.flat, 0.0, fourth - 3.0 if parameters.excess else fourth)


_SNYDER = Reference(
    "Snyder, Garcia-Romero, Sell, Povey, Khudanpur", 2018, "X-vectors: robust DNN embeddings for speaker recognition"
)

OPERATORS = (
    Operator(
        name="var",
        family="moments",
        summary="The biased variance of each region.",
        formula=r"\frac{1}{n}\sum_i (x_i - \mu)^2",
        keeps="contrast, squared",
        loses="level and sign",
        write=write_var,
        mergeable="count, mean and sum of squared deviations",
    ),
    Operator(
        name="std",
        family="moments",
        summary="The biased standard deviation of each region.",
        formula=r"\sqrt{\frac{1}{n}\sum_i (x_i - \mu)^2}",
        keeps="contrast: a shift of the input changes nothing",
        loses="level and sign",
        write=write_std,
        mergeable="count, mean and sum of squared deviations",
    ),
    Operator(
        name="mean_std",
        family="moments",
        summary="Average and standard deviation side by side: statistics pooling, 2·C channels, all averages first.",
        formula=r"[\mu,\ \sigma]",
        keeps="level and contrast",
        loses="the form of the distribution",
        write=write_mean_std,
        answer=lambda channels, parameters: 2,
        references=(_SNYDER,),
        mergeable="count, mean and sum of squared deviations",
    ),
    Operator(
        name="skew",
        family="moments",
        summary="The skewness of each region: to which side its values reach further. 0 where all are equal.",
        formula=r"\frac{\frac{1}{n}\sum_i (x_i - \mu)^3}{\sigma^3}",
        keeps="asymmetry",
        loses="level and scale",
        write=write_skew,
        mergeable="count, mean and the sums of deviations to the second and third power",
    ),
    Operator(
        name="kurtosis",
        family="moments",
        summary="The kurtosis of each region: how much of its variance comes from rare extremes.",
        formula=r"\frac{\frac{1}{n}\sum_i (x_i - \mu)^4}{\sigma^4}",
        keeps="peakedness",
        loses="level, scale and sign",
        write=write_kurtosis,
        parameters=Kurtosis,
        mergeable="count, mean and the sums of deviations to the second, third and fourth power",
    ),
)

"""Means and norms made of powers."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from graphs.operators.cells import Cells
from graphs.operators.expression import Operand, Tensor, where
from graphs.operators.functions import nonzero
from graphs.operators.operator import FEED, Operator, Parameters, Reference

_INF = float("inf")


class Lp(Parameters):
    """Parameters of `lp`."""

    p: float = Field(
        2.0,
        gt=0,
        allow_inf_nan=True,
        description="Exponent, above 0; 1 adds magnitudes, 2 is the Euclidean norm, inf the largest magnitude.",
        json_schema_extra=FEED,
    )
    form: Literal["sum", "mean"] = Field("sum", description="`mean` divides by the number of cells, inside the root.")

    @field_validator("p")
    @classmethod
    def _numeric(cls, p: float) -> float:
        if math.isnan(p):
            raise ValueError("expected a number above 0, got NaN")
        return p


class Gem(Parameters):
    """Parameters of `gem`."""

    p: float = Field(
        3.0,
        ge=-1e4,
        le=1e4,
        description="Exponent: 1 is the average, −1 the harmonic mean, large ones come near the maximum; not within 0.01 of 0.",
        json_schema_extra=FEED,
    )
    eps: float = Field(1e-6, gt=0, le=1.0, description="Values below it count as it.", json_schema_extra=FEED)

    @field_validator("p")
    @classmethod
    def _apart_from_zero(cls, p: float) -> float:
        if abs(p) < 0.01:
            raise ValueError(f"expected at least 0.01 away from 0, got {p:g}")
        return p


class Power(Parameters):
    """Parameters of `power`."""

    n: float = Field(
        1.0, ge=0, le=1e4, description="Exponent of the weights: 0 is the average.", json_schema_extra=FEED
    )


def _scale(largest: Tensor) -> Tensor:
    """What to divide by before raising to a power, so that nothing finite overflows: 1 where that would be 0 or infinite."""
    constant = largest.detach()
    return where(constant.equal(_INF), 1.0, nonzero(constant))


def write_lp(cells: Cells, parameters: Lp) -> Tensor:
    """(Σ w|x|^p)^(1/p), in units of the largest magnitude; that itself for p = ∞."""
    size = cells.fill(cells.values, 0.0).abs()
    largest = cells.max(size)
    scale = _scale(largest)
    p = cells.parameter("p")
    endless = p.equal(_INF)
    finite = where(endless, 1.0, p)
    powers = (size / scale) ** finite
    total = cells.mean(powers) if parameters.form == "mean" else cells.sum(powers)
    return where(endless, largest, total ** (1.0 / finite) * scale)


def write_gem(cells: Cells, parameters: Gem) -> Tensor:
    """(mean max(x, eps)^p)^(1/p), in units of the largest value for p > 0, of the smallest for p < 0."""
    p = cells.parameter("p")
    x = cells.values.at_least(cells.parameter("eps"))
    scale = _scale(where(p.greater(0.0), cells.max(x.detach()), cells.min(x.detach())))
    powers = cells.fill(x / scale, 1.0) ** p
    return cells.mean(powers) ** (1.0 / p) * scale


def write_power(cells: Cells, parameters: Power) -> Tensor:
    """Σ w·x^(n+1) / Σ w·x^n over x clipped at 0; 0 where no value is above 0."""
    return _powered(cells, cells.parameter("n"))


def write_stochastic(cells: Cells, parameters: Parameters) -> Tensor:
    """Σ w·x² / Σ w·x over x clipped at 0; 0 where no value is above 0."""
    return _powered(cells, 1.0)


def _powered(cells: Cells, n: Operand) -> Tensor:
    x = cells.fill(cells.values, 0.0).at_least(0.0)
    largest = cells.max(x).detach()
    scale = _scale(largest)
    ratio = x / scale
    weight = ratio if isinstance(n, float) else ratio**n
    y = cells.sum(weight * ratio) / nonzero(cells.sum(weight)) * scale
    return where(largest.equal(_INF), _INF, y)


OPERATORS = (
    Operator(
        name="lp",
        family="powers",
        summary="The p-norm of each region, without the sign; p = 2 is L2 pooling, p = inf the largest magnitude.",
        formula=r"\left(\sum_i |x_i|^p\right)^{1/p}",
        keeps="energy",
        loses="signs, and with the sum form the region's size: it grows as n^{1/p}",
        write=write_lp,
        parameters=Lp,
        references=(
            Reference(
                "Sermanet, Chintala, LeCun",
                2012,
                "Convolutional neural networks applied to house numbers digit classification",
                "1204.3968",
            ),
            Reference(
                "Gulcehre, Cho, Pascanu, Bengio",
                2013,
                "Learned-norm pooling for deep feedforward and recurrent neural networks",
                "1311.1780",
            ),
        ),
        mergeable="the sum of powers (the maximum for p = inf)",
    ),
    Operator(
        name="gem",
        family="powers",
        summary="The generalised mean (power mean) of values clipped from below: between average and maximum.",
        formula=r"\left(\frac{1}{n}\sum_i \max(x_i, \epsilon)^p\right)^{1/p}",
        keeps="the level, with strong responses weighing more for p > 1",
        loses="what lies below eps, and where anything was",
        write=write_gem,
        parameters=Gem,
        references=(
            Reference(
                "Radenović, Tolias, Chum",
                2017,
                "Fine-tuning CNN image retrieval with no human annotation",
                "1711.02512",
            ),
        ),
        mergeable="the sum of powers and the count",
    ),
    Operator(
        name="power",
        family="powers",
        summary="A mean in which each value is weighted by its own n-th power; negative values count as 0.",
        formula=r"\frac{\sum_i x_i^{n+1}}{\sum_i x_i^n}",
        keeps="strong responses: n = 0 is the average, n = 1 linear softmax, n → ∞ the maximum",
        loses="negative values, and weak ones the more the larger n",
        write=write_power,
        parameters=Power,
        references=(
            Reference(
                "Wang, Li, Metze",
                2018,
                "A comparison of five multiple instance learning pooling functions for sound event detection with weak labeling",
                "1810.09050",
            ),
            Reference(
                "Liu, Chen, Yang, Xue, Tan, Zhang",
                2020,
                "Power pooling: an adaptive pooling function for weakly labelled sound event detection",
                "2010.09985",
            ),
        ),
        mergeable="both sums of powers",
    ),
    Operator(
        name="stochastic",
        family="powers",
        summary="Stochastic pooling as it is tested: the expected value of a draw with probabilities in proportion to the values.",
        formula=r"\sum_i p_i x_i,\quad p_i = \frac{x_i}{\sum_j x_j}",
        keeps="strong responses, in proportion",
        loses="negative values; the randomness of training, which is no function of the input",
        write=write_stochastic,
        references=(
            Reference(
                "Zeiler, Fergus",
                2013,
                "Stochastic pooling for regularization of deep convolutional neural networks",
                "1301.3557",
            ),
        ),
        mergeable="the sums of squares and of values",
    ),
)

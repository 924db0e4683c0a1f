"""Mixtures of maximum, average and soft maximum."""

from __future__ import annotations

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.exponentials import softmax_mean
from graphs.operators.expression import Tensor, where
from graphs.operators.functions import concatenate, nonzero
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class Mixed(Parameters):
    """Parameters of `mixed`."""

    alpha: float = Field(
        0.5, ge=0, le=1, description="Share of the maximum; the rest is the average's.", json_schema_extra=FEED
    )


class AdaPool(Parameters):
    """Parameters of `adapool`."""

    beta: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the mean weighted by similarity to the average; the rest is SoftPool's.",
        json_schema_extra=FEED,
    )


def write_mixed(cells: Cells, parameters: Mixed) -> Tensor:
    """α·max + (1 − α)·mean."""
    return mixture(cells, cells.parameter("alpha"))


def write_avgmax(cells: Cells, parameters: Parameters) -> Tensor:
    """½(max + mean)."""
    return (cells.max(cells.values) + cells.mean(cells.values)) * 0.5


def write_catavgmax(cells: Cells, parameters: Parameters) -> Tensor:
    """Mean and max."""
    return concatenate([cells.mean(cells.values), cells.max(cells.values)])


def write_adapool(cells: Cells, parameters: AdaPool) -> Tensor:
    """β·Σ x·e^DSC(x, μ) / Σ e^DSC(x, μ) + (1 − β)·Σ x·e^x / Σ e^x, with the mean μ and DSC(a, b) = 2ab / (a² + b²), 0 for b = 0.

    The similarity lies between −1 and 1, so its exponential needs no shift.
    """
    x = cells.fill(cells.values, 0.0)
    mean = cells.mean(x)
    ratio = x / nonzero(mean)
    alike = where(mean.equal(0.0), 0.0, ratio * 2.0 / (ratio * ratio + 1.0)).exp()
    beta = cells.parameter("beta")
    similar = cells.sum(alike * x) / nonzero(cells.sum(alike))
    return similar * beta + softmax_mean(cells, 1.0) * (1.0 - beta)


def mixture(cells: Cells, share: Tensor) -> Tensor:
    """Share·max + (1 − share)·mean."""
    return cells.max(cells.values) * share + cells.mean(cells.values) * (1.0 - share)


LEE = Reference(
    "Lee, Gallagher, Tu",
    2016,
    "Generalizing pooling functions in convolutional neural networks: mixed, gated, and tree",
    "1509.08985",
)

OPERATORS = (
    Operator(
        name="mixed",
        family="mixtures",
        summary="A fixed mixture of maximum and average.",
        formula=r"\alpha \max_i x_i + (1 - \alpha) \frac{1}{n}\sum_i x_i",
        keeps="the strongest response and the level",
        loses="which of the two was which",
        write=write_mixed,
        parameters=Mixed,
        references=(
            LEE,
            Reference("Yu, Wang, Chen, Wei", 2014, "Mixed pooling for convolutional neural networks"),
        ),
        mergeable="maximum, sum and count",
    ),
    Operator(
        name="avgmax",
        family="mixtures",
        summary="Half maximum, half average.",
        formula=r"\frac{1}{2}\left(\max_i x_i + \frac{1}{n}\sum_i x_i\right)",
        keeps="the strongest response and the level",
        loses="which of the two was which",
        write=write_avgmax,
        references=(LEE,),
        mergeable="maximum, sum and count",
    ),
    Operator(
        name="catavgmax",
        family="mixtures",
        summary="Average and maximum side by side: 2·C channels, all averages first.",
        formula=r"\left[\frac{1}{n}\sum_i x_i,\ \max_i x_i\right]",
        keeps="the level and the strongest response, apart",
        loses="everything else",
        write=write_catavgmax,
        answer=lambda channels, parameters: 2,
        references=(
            Reference("Woo, Park, Lee, Kweon", 2018, "CBAM: convolutional block attention module", "1807.06521"),
        ),
        mergeable="maximum, sum and count",
    ),
    Operator(
        name="adapool",
        family="mixtures",
        summary="AdaPool: a mean weighted by each value's similarity to the average, mixed with SoftPool.",
        formula=r"\beta \frac{\sum_i x_i e^{s_i}}{\sum_i e^{s_i}} + (1 - \beta)\frac{\sum_i x_i e^{x_i}}{\sum_i e^{x_i}},"
        r"\quad s_i = \frac{2 x_i \mu}{x_i^2 + \mu^2}",
        keeps="what is typical and what is strong",
        loses="monotonicity",
        write=write_adapool,
        parameters=AdaPool,
        references=(
            Reference(
                "Stergiou, Poppe",
                2021,
                "AdaPool: exponential adaptive pooling for information-retaining downsampling",
                "2111.00772",
            ),
        ),
    ),
)

"""Soft maxima: means and sums of exponentials, shifted by the maximum so that nothing overflows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graphs.operators.cells import LOWEST, Cells
from graphs.operators.expression import Tensor, where
from graphs.operators.functions import nonzero
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class LogSumExp(Parameters):
    """Parameters of `lse`."""

    r: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="Sharpness, above 0: small ones come near the average, large ones near the maximum.",
        json_schema_extra=FEED,
    )
    form: Literal["mean", "sum"] = Field("mean", description="`sum` does not divide by the number of cells.")


class Softmax(Parameters):
    """Parameters of `softmax`."""

    alpha: float = Field(
        1.0,
        ge=-1e6,
        le=1e6,
        description="Sharpness: 0 is the average, large ones come near the maximum, negative ones near the minimum.",
        json_schema_extra=FEED,
    )


class SoftPool(Parameters):
    """Parameters of `softpool`."""

    tau: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="Temperature: small ones come near the maximum, large ones near the average.",
        json_schema_extra=FEED,
    )


class Boltzmann(Parameters):
    """Parameters of `boltzmann`."""

    beta: float = Field(
        1.0,
        ge=-1e6,
        le=1e6,
        description="Inverse temperature: 0 is the average, ±∞ the maximum and the minimum.",
        json_schema_extra=FEED,
    )


def write_lse(cells: Cells, parameters: LogSumExp) -> Tensor:
    """With the maximum m: m + ln(mean e^(r(x − m))) / r; −∞ where all values are."""
    r = cells.parameter("r")
    shift = _finite(cells.max(cells.values))
    powers = cells.fill((cells.values - shift) * r, 0.0).exp()
    total = cells.mean(powers) if parameters.form == "mean" else cells.sum(powers)
    return total.log() / r + shift


def softmax_mean(cells: Cells, sharpness: Tensor | float) -> Tensor:
    """Σ w·x·e^(αx) / Σ w·e^(αx), written by the distances to the extreme that α favours: m + Σ w·d·e^(αd) / Σ w·e^(αd).

    −∞ where all values are, ±∞ where a value that counts most is.
    """
    x = cells.values
    if isinstance(sharpness, Tensor):
        extreme = where(sharpness.less(0.0), cells.min(x.detach()), cells.max(x.detach()))
    else:
        extreme = cells.max(x.detach())
    shift = _finite(extreme)
    distance = cells.fill(x - shift, 0.0)
    powers = (distance * sharpness).exp()
    reached = where(powers.equal(0.0), 0.0, distance)  # 0 · −∞ is 0 here
    y = cells.sum(powers * reached) / nonzero(cells.sum(powers)) + shift
    return where(extreme.equal(shift), y, extreme)


def write_softmax(cells: Cells, parameters: Softmax) -> Tensor:
    """Σ w·x·e^(αx) / Σ w·e^(αx)."""
    return softmax_mean(cells, cells.parameter("alpha"))


def write_softpool(cells: Cells, parameters: SoftPool) -> Tensor:
    """Σ w·x·e^(x/τ) / Σ w·e^(x/τ)."""
    return softmax_mean(cells, 1.0 / cells.parameter("tau"))


def write_boltzmann(cells: Cells, parameters: Boltzmann) -> Tensor:
    """Σ w·x·e^(βx) / Σ w·e^(βx)."""
    return softmax_mean(cells, cells.parameter("beta"))


def _finite(extreme: Tensor) -> Tensor:
    """A constant to shift by: 0 in place of ±∞."""
    constant = extreme.detach()
    return where(constant.abs().equal(-LOWEST), 0.0, constant)


_SOFTMAX_STATE = "the maximum m, Σ e^{α(x − m)} and Σ x·e^{α(x − m)}"

OPERATORS = (
    Operator(
        name="lse",
        family="exponentials",
        summary="Log-sum-exp: a smooth maximum between the average and the maximum.",
        formula=r"\frac{1}{r}\ln\left(\frac{1}{n}\sum_i e^{r x_i}\right)",
        keeps="strong responses; level, as a shift of the input shifts it by the same",
        loses="scale: r must fit the values' spread",
        write=write_lse,
        parameters=LogSumExp,
        references=(
            Reference(
                "Pinheiro, Collobert",
                2015,
                "From image-level to pixel-level labeling with convolutional networks",
                "1411.6228",
            ),
            Reference(
                "Asadi, Littman", 2017, "An alternative softmax operator for reinforcement learning", "1612.05628"
            ),
        ),
        mergeable="the maximum m, Σ e^{r(x − m)} and the count",
    ),
    Operator(
        name="softmax",
        family="exponentials",
        summary="A mean weighted by e^(αx): autopool, from the minimum over the average to the maximum.",
        formula=r"\frac{\sum_i x_i e^{\alpha x_i}}{\sum_i e^{\alpha x_i}}",
        keeps="strong responses (weak ones for α < 0), differentiable everywhere",
        loses="monotonicity: raising a value far below the result can lower it",
        write=write_softmax,
        parameters=Softmax,
        references=(
            Reference(
                "McFee, Salamon, Bello",
                2018,
                "Adaptive pooling operators for weakly labeled sound event detection",
                "1804.10070",
            ),
        ),
        mergeable=_SOFTMAX_STATE,
    ),
    Operator(
        name="softpool",
        family="exponentials",
        summary="SoftPool: a mean weighted by e^(x/τ).",
        formula=r"\frac{\sum_i x_i e^{x_i/\tau}}{\sum_i e^{x_i/\tau}}",
        keeps="strong responses, and some of every other",
        loses="monotonicity: raising a value by more than τ below the result lowers it",
        write=write_softpool,
        parameters=SoftPool,
        references=(
            Reference(
                "Stergiou, Poppe, Kalliatakis",
                2021,
                "Refining activation downsampling with SoftPool",
                "2101.00440",
            ),
        ),
        mergeable=_SOFTMAX_STATE,
    ),
    Operator(
        name="boltzmann",
        family="exponentials",
        summary="The Boltzmann operator: a mean weighted by e^(βx), with β the inverse temperature.",
        formula=r"\frac{\sum_i x_i e^{\beta x_i}}{\sum_i e^{\beta x_i}}",
        keeps="what `softmax` does: it is the same function under the name of reinforcement learning",
        loses="monotonicity",
        write=write_boltzmann,
        parameters=Boltzmann,
        references=(
            Reference(
                "Asadi, Littman", 2017, "An alternative softmax operator for reinforcement learning", "1612.05628"
            ),
        ),
        mergeable=_SOFTMAX_STATE,
    ),
)

"""Aggregates for image retrieval: region by region, or cell by cell, made one vector of all channels."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor, where
from graphs.operators.functions import flatten, l2_normalize, nonzero
from graphs.operators.operator import FEED, Operator, Parameters, Reference
from graphs.operators.regions.block import Regions
from graphs.operators.regions.rmac import rmac
from graphs.operators.request import RegionParameters


class Crow(Parameters):
    """Parameters of CroW."""

    a: float = Field(
        2.0, gt=0, le=100, description="Which norm the weights of the cells are divided by.", json_schema_extra=FEED
    )
    b: float = Field(2.0, gt=0, le=100, description="Which root is taken of them.", json_schema_extra=FEED)


class Rmac(Parameters):
    """Parameters of R-MAC."""

    scales: int = Field(3, ge=1, le=64, description="Of the squares: at scale l their side is ⌊2w/(l+1)⌋.")
    include_whole: bool = Field(True, description="Whether the plane itself is a region, as in the authors' code.")
    eps: float = Field(1e-6, gt=0, le=1, description="The least norm that is divided by.", json_schema_extra=FEED)


def write_crow(cells: Cells, parameters: Crow) -> Tensor:
    """I_c · Σ w·(S/‖S‖_a)^(1/b) x_c, with S = Σ_c x and I_c = ln(ΣQ/Q_c): (N,r,C). The counts Q are constants to gradients."""
    x = cells.fill(cells.values, 0.0)
    a, b = cells.parameter("a"), cells.parameter("b")
    strength = x.sum(2).at_least(0.0)
    strength = strength / nonzero(strength.detach().max(3))
    size = nonzero(cells.sum(strength**a))
    attended = cells.sum(strength ** (1.0 / b) * x) / size ** (1.0 / (a * b))
    frequency = cells.sum(1.0 - x.equal(0.0).cast(x.graph.dtype)) / cells.size()
    rarity = where(frequency.equal(0.0), 0.0, (nonzero(frequency.sum(2)) / nonzero(frequency)).log())
    return flatten(attended * rarity)


def write_rmac(cells: Cells, parameters: Rmac) -> Tensor:
    """Maxima of each region, their norm over the channels made 1, added up, and again: (N,1,C)."""
    eps = cells.parameter("eps")
    top = cells.max(cells.values)
    if cells.weight is not None:  # a region without cells adds nothing
        top = where(cells.weight.max().equal(0.0), 0.0, top)
    total = l2_normalize(l2_normalize(top, 2, eps).sum(1), 2, eps)
    return total.reshape([0, 1, -1], [total.thin[0], True, False])


def _rmac_regions(plane: tuple[int, ...], request: RegionParameters, parameters: Any) -> Regions:
    return rmac(plane, parameters.scales, include_whole=parameters.include_whole)


OPERATORS = (
    Operator(
        name="crow",
        family="aggregates",
        summary="Sums weighted by how active each place is over all channels, and by how rarely each channel is.",
        formula=(
            r"I_c\sum_i S'_i x_{ic},\quad S'=\left(S/\lVert S\rVert_a\right)^{1/b},\ S_i=\sum_c x_{ic},"
            r"\ I_c=\ln\frac{\sum_k Q_k}{Q_c},\ Q_c=\frac{1}{n}\left|\{i: x_{ic}\ne 0\}\right|"
        ),
        keeps="salient places and rare channels; meant for values of at least 0",
        loses="background, and channels that are active everywhere",
        write=write_crow,
        parameters=Crow,
        references=(
            Reference(
                "Kalantidis, Mellina, Osindero",
                2015,
                "Cross-dimensional weighting for aggregated deep convolutional features",
                "1512.04065",
            ),
        ),
        joint=True,
        mergeable="the sums of S^(1/b)·x and of S^a, and the counts of what is not 0",
    ),
    Operator(
        name="rmac",
        family="aggregates",
        summary="Maxima over squares of several sizes (R-MAC), each made a unit vector, added up and made one again.",
        formula=r"\ell_2\Big(\sum_R \ell_2\big(\max_{i\in R}x_i\big)\Big)",
        keeps="the strongest responses of every part of the plane, each part with the same say",
        loses="strength, and which part was where",
        write=write_rmac,
        parameters=Rmac,
        references=(
            Reference(
                "Tolias, Sicre, Jégou",
                2015,
                "Particular object retrieval with integral max-pooling of CNN activations",
                "1511.05879",
            ),
        ),
        joint=True,
        mergeable="the maximum of each region, where regions are those of the whole plane",
        regions=_rmac_regions,
        together=True,
    ),
)

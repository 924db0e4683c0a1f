"""Codebooks: how the cells lie around given centres, Σ of what is left of them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.functions import abreast, flatten, l2_normalize, matmul, signed_sqrt, softmax, transpose, widen
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class Vlad(Parameters):
    """Parameters of VLAD."""

    centres: Any = Field(description="Tensor (K,C).", json_schema_extra=FEED)
    alpha: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="How hard cells are assigned: 0 to all alike, very large to the nearest only.",
        json_schema_extra=FEED,
    )


class Fisher(Parameters):
    """Parameters of Fisher vectors."""

    means: Any = Field(description="Tensor (K,C).", json_schema_extra=FEED)
    sigmas: Any = Field(description="Tensor (K,C): standard deviations, above 0.", json_schema_extra=FEED)
    priors: Any = Field(description="Tensor (K,): weights of the mixture, above 0.", json_schema_extra=FEED)
    normalize: bool = Field(True, description="Signed square root of each entry, then the l2 norm made 1.")


def write_vlad(cells: Cells, parameters: Vlad) -> Tensor:
    """Σ w·a_k(x) (x − c_k), each centre's norm made 1, then all of it: (N,r,K·C)."""
    centres = widen(cells.parameter("centres", "K", "C"), 4)
    origin = _mean(centres)  # distances do not see it, and around it they keep their digits
    x = cells.fill(cells.values - transpose(origin, 0, 1, 3, 2), 0.0)
    centres = centres - origin
    # −α‖x − c‖² = α(2c·x − ‖c‖²) − α‖x‖², and the last is the same for all centres
    logits = cells.parameter("alpha") * (2.0 * matmul(centres, x) - (centres * centres).sum())
    assigned = cells.weigh(softmax(logits, 2))
    left = matmul(assigned, transpose(x, 0, 1, 3, 2)) - assigned.sum() * centres
    return l2_normalize(flatten(l2_normalize(left)))


def write_fisher(cells: Cells, parameters: Fisher) -> Tensor:
    """Gradients of the log-likelihood by means and deviations, in units of their information: (N,r,2·K·C), means first."""
    means, sigmas = (widen(cells.parameter(name, "K", "C"), 4) for name in ("means", "sigmas"))
    priors = transpose(widen(cells.parameter("priors", "K"), 4), 0, 1, 3, 2)
    origin = _mean(means)
    x = cells.fill(cells.values - transpose(origin, 0, 1, 3, 2), 0.0)
    inverse = 1.0 / sigmas
    shift = (means - origin) * inverse
    squares = x * x
    logits = matmul(shift * inverse, x) - 0.5 * matmul(inverse * inverse, squares)
    logits = logits + (priors.log() - (0.5 * shift * shift + sigmas.log()).sum())
    posterior = cells.weigh(softmax(logits, 2)) / cells.size()
    mass = posterior.sum()
    first = matmul(posterior, transpose(x, 0, 1, 3, 2)) * inverse  # Σ γ x/σ
    second = matmul(posterior, transpose(squares, 0, 1, 3, 2)) * inverse * inverse  # Σ γ x²/σ²
    root = priors.sqrt()
    by_means = (first - mass * shift) / root
    by_sigmas = (second - 2.0 * first * shift + mass * (shift * shift - 1.0)) / (2.0**0.5 * root)
    y = abreast(flatten(by_means), flatten(by_sigmas))
    return l2_normalize(signed_sqrt(y)) if parameters.normalize else y


def _mean(rows: Tensor) -> Tensor:
    """(1,1,K,C) → (1,1,1,C)."""
    return rows.sum(2) / rows.length(2).cast(rows.graph.dtype)


OPERATORS = (
    Operator(
        name="vlad",
        family="codebooks",
        summary="What is left of the cells around each of K given centres: K·C numbers, centre by centre.",
        formula=(
            r"\ell_2\big(\ell_2(V_1),\dots,\ell_2(V_K)\big),\quad V_k=\sum_i a_k(x_i)(x_i-c_k),"
            r"\ a(x)=\operatorname{softmax}_k\!\left(-\alpha\lVert x-c_k\rVert^2\right)"
        ),
        keeps="which kinds of cells there are, and how they differ from the typical one",
        loses="how many there are of each kind, and where",
        write=write_vlad,
        parameters=Vlad,
        references=(
            Reference(
                "Jégou, Douze, Schmid, Pérez", 2010, "Aggregating local descriptors into a compact image representation"
            ),
            Reference(
                "Arandjelović, Gronat, Torii, Pajdla, Sivic",
                2016,
                "NetVLAD: CNN architecture for weakly supervised place recognition",
                "1511.07247",
            ),
        ),
        joint=True,
        mergeable="the sums V, before they are normalised",
        learnable=True,
        weights={"centres": ("K", "C")},
        answer=lambda channels, parameters: len(parameters.centres) * channels,
        beside=lambda channels, parameters: len(parameters.centres),
    ),
    Operator(
        name="fisher",
        family="codebooks",
        summary="How a given mixture of Gaussians would have to change to fit the cells: 2·K·C numbers.",
        formula=(
            r"\left[\frac{1}{n\sqrt{\pi_k}}\sum_i\gamma_{ik}\frac{x_i-\mu_k}{\sigma_k},"
            r"\ \frac{1}{n\sqrt{2\pi_k}}\sum_i\gamma_{ik}\left(\frac{(x_i-\mu_k)^2}{\sigma_k^2}-1\right)\right]"
        ),
        keeps="first and second order of each kind of cell",
        loses="how many there are, and where",
        write=write_fisher,
        parameters=Fisher,
        references=(
            Reference("Perronnin, Dance", 2007, "Fisher kernels on visual vocabularies for image categorization"),
            Reference(
                "Perronnin, Sánchez, Mensink", 2010, "Improving the Fisher kernel for large-scale image classification"
            ),
        ),
        joint=True,
        mergeable="the sums of posteriors, and with them of cells and squares",
        learnable=True,
        weights={"means": ("K", "C"), "sigmas": ("K", "C"), "priors": ("K",)},
        positive=("sigmas", "priors"),
        answer=lambda channels, parameters: 2 * len(parameters.means) * channels,
        beside=lambda channels, parameters: len(parameters.means) + channels,
    ),
)

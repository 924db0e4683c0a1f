"""The catalogue: every operator, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from graphs.operators import (
    aggregates,
    attention,
    clusters,
    codebooks,
    exponentials,
    extremes,
    gated,
    kmax,
    learned,
    means,
    mixtures,
    moments,
    orders,
    powers,
    routing,
    second_order,
    windowed,
)
from graphs.operators.operator import Operator

FAMILIES = (
    extremes,
    means,
    powers,
    exponentials,
    orders,
    kmax,
    moments,
    mixtures,
    gated,
    windowed,
    attention,
    second_order,
    codebooks,
    routing,
    aggregates,
    learned,
    clusters,
)

CATALOGUE: Mapping[str, Operator] = MappingProxyType(
    {operator.name: operator for family in FAMILIES for operator in family.OPERATORS}
)

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "tensor sketch": "its convolutions need a Fourier transform, which has no CUDA kernel; `compact_bilinear` projects instead",
        "multi-head latent query (MAP, PMA) and CLIP's AttentionPool2d": "a layer of projections, embeddings and an MLP that "
        "belongs to one trained model; without them it is `attention`, whose query takes up the projections of query and key",
        "PRR pooling": "self-attention between all pairs of cells: n² memory for each region",
        "stochastic pooling's draws, the random form of mixed pooling, rank-based stochastic pooling, Gaussian-based pooling's "
        "draws (Kobayashi 2019)": "regularise training; an answer must be a function of the request. `stochastic` gives the "
        "expectation, `mixed` and `rank` the forms without a draw",
        "tree pooling, local importance pooling (LIP), detail-preserving pooling (DPP)": "small networks that belong to one "
        "trained model; `gated` is the tree of one node",
        "MaxBlurPool": "two poolings one after the other: `max` with stride 1, then `blur`",
        "adaptive polyphase sampling (APS)": "chooses one grid for a whole plane by its norm, no statistic of regions",
        "spectral pooling": "needs a Fourier transform, which has no CUDA kernel",
    }
)
"""Poolings that the catalogue does not have, each with the reason."""


class UnknownOperator(ValueError):
    """No operator has this name; the message names the nearest."""


def find(name: str) -> Operator:
    """Look an operator up.

    Raises:
        UnknownOperator: there is none of this name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    nearest = difflib.get_close_matches(name.lower()[:64], CATALOGUE, n=3, cutoff=0.0)
    raise UnknownOperator(
        f"expected an operator of the catalogue, got another name; the nearest are {', '.join(nearest)}"
    )

"""Attention: a weighted mean of the cells whose weights come from the cells themselves."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import LOWEST, Cells
from graphs.operators.expression import Tensor, where
from graphs.operators.functions import abreast, flatten, matmul, nonzero, transpose, widen
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class Attention(Parameters):
    """Parameters of attention."""

    query: Any = Field(description="Tensor (Q,C), or (C,) for one query.", json_schema_extra=FEED)


class MultipleInstance(Parameters):
    """Parameters of attention for multiple instances."""

    hidden: Any = Field(description="Tensor V (H,C): from channels to hidden units.", json_schema_extra=FEED)
    score: Any = Field(description="Tensor w (Q,H), or (H,): from hidden units to scores.", json_schema_extra=FEED)


class GatedMultipleInstance(MultipleInstance):
    """Parameters of gated attention for multiple instances."""

    gate: Any = Field(description="Tensor U (H,C): from channels to the gates.", json_schema_extra=FEED)


class SimPool(Parameters):
    """Parameters of SimPool."""

    gamma: float = Field(
        2.0, gt=0, le=100, description="γ: 1 is a mean, larger nearer to a maximum.", json_schema_extra=FEED
    )


class AttentiveStatistics(Parameters):
    """Parameters of attentive statistics."""

    hidden: Any = Field(description="Tensor W (H,C): from channels to hidden units.", json_schema_extra=FEED)
    offset: Any = Field(description="Tensor b (H,): added to them.", json_schema_extra=FEED)
    score: Any = Field(description="Tensor v (Q,H), or (H,): from hidden units to scores.", json_schema_extra=FEED)


def write_attention(cells: Cells, parameters: Attention) -> Tensor:
    """Σ softmax(q·x/√C) x for each query: (N,r,Q·C)."""
    x = cells.fill(cells.values, 0.0)
    query = widen(cells.parameter("query", "Q", "C"), 4) / _root(x)
    return flatten(_attended(cells, matmul(query, x), x))


def write_mil(cells: Cells, parameters: MultipleInstance) -> Tensor:
    """Σ softmax(wᵀ tanh(Vx)) x: (N,r,Q·C)."""
    x = cells.fill(cells.values, 0.0)
    units = _project(cells, "hidden", x).tanh()
    return flatten(_attended(cells, matmul(_scores(cells), units), x))


def write_gated_mil(cells: Cells, parameters: GatedMultipleInstance) -> Tensor:
    """Σ softmax(wᵀ (tanh(Vx) ⊙ σ(Ux))) x: (N,r,Q·C)."""
    x = cells.fill(cells.values, 0.0)
    units = _project(cells, "hidden", x).tanh() * _project(cells, "gate", x).sigmoid()
    return flatten(_attended(cells, matmul(_scores(cells), units), x))


def write_simpool(cells: Cells, parameters: SimPool) -> Tensor:
    """(Σ a (x − min x)^γ)^(1/γ) with a = softmax(x̄·x/√C): (N,r,C)."""
    x = cells.fill(cells.values, 0.0)
    query = transpose(cells.mean(x), 0, 1, 3, 2) / _root(x)
    lowest = cells.min(x)
    lowest = where(lowest.equal(-LOWEST), 0.0, lowest).min(2)
    above = cells.fill(x - lowest, 0.0)
    top = nonzero(above.detach().max(3))
    gamma = cells.parameter("gamma")
    raised = (above / top) ** gamma
    mean = (cells.softmax(matmul(query, x)) * raised).sum()
    return flatten(mean ** (1.0 / gamma) * top)


def write_attentive_statistics(cells: Cells, parameters: AttentiveStatistics) -> Tensor:
    """Mean and standard deviation under softmax(vᵀ tanh(Wx + b)): (N,r,2·Q·C), all means first."""
    x = cells.fill(cells.values, 0.0)
    offset = transpose(widen(cells.parameter("offset", "H"), 4), 0, 1, 3, 2)
    logits = matmul(_scores(cells), (_project(cells, "hidden", x) + offset).tanh())
    scale = nonzero(x.detach().abs().max(3).max(2))
    centre = cells.mean(x)  # the squares of what is far from 0 would leave no digits to the difference
    part = cells.fill(x - centre, 0.0) / scale
    mean = _attended(cells, logits, part)
    variance = (_attended(cells, logits, part * part) - mean * mean).at_least(0.0)
    return abreast(flatten(mean * scale + transpose(centre, 0, 1, 3, 2)), flatten(variance.sqrt() * scale))


def _project(cells: Cells, name: str, x: Tensor) -> Tensor:
    return matmul(widen(cells.parameter(name, "H", "C"), 4), x)


def _scores(cells: Cells) -> Tensor:
    return widen(cells.parameter("score", "Q", "H"), 4)


def _root(x: Tensor) -> Tensor:
    """√C."""
    return x.length(2).cast(x.graph.dtype).sqrt()


def _attended(cells: Cells, logits: Tensor, x: Tensor) -> Tensor:
    """(N,r,Q,n) and (N,r,C,n) → (N,r,Q,C): the mean of the cells under the softmax of the logits."""
    return matmul(cells.softmax(logits), transpose(x, 0, 1, 3, 2))


_ILSE = Reference("Ilse, Tomczak, Welling", 2018, "Attention-based deep multiple instance learning", "1802.04712")
_MERGE = "for each query the largest score, and the sums of exponentials and of cells relative to it"

OPERATORS = (
    Operator(
        name="attention",
        family="attention",
        summary="The mean of the cells, weighted by how well each fits a query.",
        formula=r"\sum_i a_i x_i,\quad a=\operatorname{softmax}_i\!\left(q^\top x_i/\sqrt C\right)",
        keeps="what the query asks for",
        loses="the rest, and where it was",
        write=write_attention,
        parameters=Attention,
        references=(
            Reference("Vaswani and others", 2017, "Attention is all you need", "1706.03762"),
            Reference(
                "Lee, Lee, Kim, Kosiorek, Choi, Teh",
                2018,
                "Set Transformer: a framework for attention-based permutation-invariant neural networks",
                "1810.00825",
            ),
        ),
        joint=True,
        mergeable=_MERGE,
        learnable=True,
        weights={"query": ("Q", "C")},
        answer=lambda channels, parameters: len(parameters.query) * channels,
        beside=lambda channels, parameters: len(parameters.query),
    ),
    Operator(
        name="mil",
        family="attention",
        summary="Attention for multiple instances: the weights come from a small network over each cell.",
        formula=r"\sum_i a_i x_i,\quad a=\operatorname{softmax}_i\!\left(w^\top\tanh(V x_i)\right)",
        keeps="the cells that decide",
        loses="the others, and where it was",
        write=write_mil,
        parameters=MultipleInstance,
        references=(_ILSE,),
        joint=True,
        mergeable=_MERGE,
        learnable=True,
        weights={"hidden": ("H", "C"), "score": ("Q", "H")},
        answer=lambda channels, parameters: len(parameters.score) * channels,
        beside=lambda channels, parameters: sum(parameters.score.shape),
    ),
    Operator(
        name="gated_mil",
        family="attention",
        summary="Attention for multiple instances whose hidden units have gates, so that it is not nearly linear around 0.",
        formula=r"\sum_i a_i x_i,\quad a=\operatorname{softmax}_i\!\left(w^\top(\tanh(V x_i)\odot\sigma(U x_i))\right)",
        keeps="the cells that decide",
        loses="the others, and where it was",
        write=write_gated_mil,
        parameters=GatedMultipleInstance,
        references=(_ILSE,),
        joint=True,
        mergeable=_MERGE,
        learnable=True,
        weights={"hidden": ("H", "C"), "gate": ("H", "C"), "score": ("Q", "H")},
        answer=lambda channels, parameters: len(parameters.score) * channels,
        beside=lambda channels, parameters: sum(parameters.score.shape) + len(parameters.gate),
    ),
    Operator(
        name="simpool",
        family="attention",
        summary="Attention whose query is the average, with a power mean; its learned projections are the identity here.",
        formula=(
            r"\left(\sum_i a_i (x_i-\min x)^\gamma\right)^{1/\gamma},"
            r"\quad a=\operatorname{softmax}_i\!\left(\bar x^\top x_i/\sqrt C\right)"
        ),
        keeps="what is like the region as a whole: the object, where there is one",
        loses="what is unlike it, and the level of the lowest value",
        write=write_simpool,
        parameters=SimPool,
        references=(
            Reference(
                "Psomas, Kakogeorgiou, Karantzalos, Avrithis",
                2023,
                "Keep it SimPool: who said supervised transformers suffer from attention deficit?",
                "2309.06891",
            ),
        ),
        joint=True,
    ),
    Operator(
        name="attentive_statistics",
        family="attention",
        summary="Mean and standard deviation of each channel under attention.",
        formula=(
            r"\left[\mu,\ \sqrt{\textstyle\sum_i a_i x_i^2-\mu^2}\right],"
            r"\quad a=\operatorname{softmax}_i\!\left(v^\top\tanh(W x_i+b)\right),\ \mu=\sum_i a_i x_i"
        ),
        keeps="level and spread of the cells that decide",
        loses="the others, and where it was",
        write=write_attentive_statistics,
        parameters=AttentiveStatistics,
        references=(
            Reference(
                "Okabe, Koshinaka, Shinoda",
                2018,
                "Attentive statistics pooling for deep speaker embedding",
                "1803.10963",
            ),
        ),
        joint=True,
        mergeable="for each score the largest, and the sums of exponentials, cells and squares relative to it",
        learnable=True,
        weights={"hidden": ("H", "C"), "offset": ("H",), "score": ("Q", "H")},
        answer=lambda channels, parameters: 2 * len(parameters.score) * channels,
        beside=lambda channels, parameters: sum(parameters.score.shape),
    ),
)

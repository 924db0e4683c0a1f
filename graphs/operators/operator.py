"""What describes an operator: everything that is said of it anywhere is said here once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.regions.block import Regions
from graphs.operators.request import RegionParameters


class Parameters(BaseModel):
    """An operator's own parameters; those of the regions are the same for all.

    A field whose `json_schema_extra` has `feed` is an input of the graph (`Cells.parameter`): one graph serves any value of it.
    Every other field is built into the graph.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False)


FEED: dict[str, Any] = {"feed": True}
"""Marks a field that is an input of the graph: `Field(…, json_schema_extra=FEED)`."""


@dataclass(frozen=True)
class Reference:
    """Where a formula comes from."""

    authors: str
    year: int
    title: str
    arxiv: str | None = None


Write = Callable[[Cells, Any], Tensor]
"""(cells, parameters) → (B,r,K), or for operators that see all channels (N,r,D)."""

Size = Callable[[int, Any], int]
"""(channels, parameters with their checked arrays) → how many numbers, to know before anything is allocated."""


@dataclass(frozen=True)
class Operator:
    """One entry of the catalogue.

    Attributes:
        name: in requests.
        family: of operators that belong together.
        summary: one sentence.
        formula: LaTeX.
        keeps: what of the region survives.
        loses: what does not.
        write: writes the formula into a graph.
        parameters: the operator's own.
        references: where it comes from; empty for folklore.
        joint: it sees all channels of a sample at once.
        linear: it is a weighted sum of cells, so that interpolated cells make sense to it.
        answers: dtype for integers in: theirs, int64 (uint64 for uint64), or float32. Floats answer with their own dtype, but sums
            of float16 with float32.
        differentiable: it has a gradient.
        mergeable: what tiles must keep to be merged exactly; None: they cannot.
        learnable: it has weights that a network can learn, and takes them in the request.
        regions: the operator's own region system, where it is not the request's choice: (plane, request, parameters) → Regions.
        together: it must see all regions of the plane in one table, and answers for all of them at once: (N,1,D).
        weights: the arrays that it takes in the request, all of them needed, each with the names of its axes. Equal names have
            equal lengths; `C` is the number of channels, `L` of cells in the plane. Leading axes of length 1 may be left out.
        positive: those of them whose numbers must be above 0.
        labels: the operator's own segments, from the tensor's numbers, where the request has no `labels`: (x (N,C,L), plane,
            parameters) → (N,L). Its parameter `clusters` says how many.
        labelling: (cells, parameters) → how much work that is for one sample.
        answer: (channels, parameters) → at most so many numbers for a region, of a sample for joint operators, else a channel.
        beside: (channels, parameters) → so many numbers are made for each cell beside its values.
    """

    name: str
    family: str
    summary: str
    formula: str
    keeps: str
    loses: str
    write: Write
    parameters: type[Parameters] = Parameters
    references: tuple[Reference, ...] = ()
    joint: bool = False
    linear: bool = False
    answers: Literal["same", "sum", "float"] = "float"
    differentiable: bool = True
    mergeable: str | None = None
    learnable: bool = False
    regions: Callable[[tuple[int, ...], RegionParameters, Any], Regions] | None = None
    together: bool = False
    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    positive: tuple[str, ...] = ()
    labels: Callable[[np.ndarray, tuple[int, ...], Any], np.ndarray] | None = None
    labelling: Size | None = None
    answer: Size | None = None
    beside: Size | None = None

"""Routing by agreement between capsules."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.functions import matmul, nonzero, norm, softmax, transpose, widen
from graphs.operators.operator import FEED, Operator, Parameters, Reference


class Capsule(Parameters):
    """Parameters of capsules."""

    transforms: Any = Field(
        description="Tensor (J,D,C): from the channels of a cell to what it predicts of each of J capsules.",
        json_schema_extra=FEED,
    )
    iterations: int = Field(3, ge=1, le=10, description="Rounds of routing; 1 gives every capsule the same share.")


def write_capsule(cells: Cells, parameters: Capsule) -> Tensor:
    """Capsules to whose agreement cells are routed: (N,r,J·D).

    The predictions û = W_j x_i are never made for all cells: Σ c û = W_j Σ c x, and û·v = x·W_jᵀv.
    """
    transforms = widen(cells.parameter("transforms", "J", "D", "C"), 5)
    back = transpose(transforms, 0, 1, 2, 4, 3)
    x = cells.fill(cells.values, 0.0)
    # At first every capsule gets the same share of every cell.
    share = transpose(cells.sum(x), 0, 1, 3, 2) / transforms.length(2).cast(x.graph.dtype)
    capsules = _squash(matmul(transforms, _column(share)))
    agreement: Tensor | None = None
    for _ in range(parameters.iterations - 1):
        wanted = matmul(back, capsules).reshape([0, 0, 0, -1], [*x.thin[:2], False, False])
        more = matmul(wanted, x)
        agreement = more if agreement is None else agreement + more
        share = matmul(cells.weigh(softmax(agreement, 2)), transpose(x, 0, 1, 3, 2))
        capsules = _squash(matmul(transforms, _column(share)))
    return capsules.reshape([0, 0, -1], [*x.thin[:2], False])


def _squash(s: Tensor) -> Tensor:
    """‖s‖²/(1 + ‖s‖²) · s/‖s‖ along the fourth axis."""
    length = nonzero(norm(s, 3))
    return s / length / (1.0 + 1.0 / length / length)


def _column(x: Tensor) -> Tensor:
    """(N,r,J,C) → (N,r,J,C,1)."""
    return x.reshape([0, 0, 0, 0, 1], [*x.thin, True])


OPERATORS = (
    Operator(
        name="capsule",
        family="routing",
        summary="Each cell sends what it predicts to the capsules that other cells agree with: J capsules of D numbers.",
        formula=(
            r"v_j=\frac{\lVert s_j\rVert^2}{1+\lVert s_j\rVert^2}\frac{s_j}{\lVert s_j\rVert},"
            r"\quad s_j=\sum_i c_{ij}W_j x_i,\quad c_i=\operatorname{softmax}_j b_i,"
            r"\quad b_{ij}\leftarrow b_{ij}+v_j^\top W_j x_i"
        ),
        keeps="what many cells agree on, and how much of it there is, as the length of a vector",
        loses="cells that nothing agrees with, and where anything was: the transforms are the same for every cell",
        write=write_capsule,
        parameters=Capsule,
        references=(Reference("Sabour, Frosst, Hinton", 2017, "Dynamic routing between capsules", "1710.09829"),),
        joint=True,
        learnable=True,
        weights={"transforms": ("J", "D", "C")},
        answer=lambda channels, parameters: len(parameters.transforms) * max(channels, parameters.transforms.shape[1]),
        beside=lambda channels, parameters: len(parameters.transforms),
    ),
)

"""Maximum, minimum and what is made of them."""

from __future__ import annotations

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.operator import Operator, Parameters, Reference


def write_max(cells: Cells, parameters: Parameters) -> Tensor:
    """The maximum; the gradient goes to the first of equals."""
    return cells.max(cells.values)


def write_min(cells: Cells, parameters: Parameters) -> Tensor:
    """The minimum."""
    return cells.min(cells.values)


def write_range(cells: Cells, parameters: Parameters) -> Tensor:
    """The maximum less the minimum."""
    return cells.max(cells.values) - cells.min(cells.values)


OPERATORS = (
    Operator(
        name="max",
        family="extremes",
        summary="The largest value of each region.",
        formula=r"\max_i x_i",
        keeps="the strongest response, and with `return_indices` its position",
        loses="every other value, and how often the largest occurs",
        write=write_max,
        references=(
            Reference("Zhou, Chellappa", 1988, "Computation of optical flow using a neural network"),
            Reference("Boureau, Ponce, LeCun", 2010, "A theoretical analysis of feature pooling in visual recognition"),
        ),
        answers="same",
        mergeable="the maximum",
    ),
    Operator(
        name="min",
        family="extremes",
        summary="The smallest value of each region.",
        formula=r"\min_i x_i",
        keeps="the weakest response",
        loses="every other value",
        write=write_min,
        answers="same",
        mergeable="the minimum",
    ),
    Operator(
        name="range",
        family="extremes",
        summary="The largest value less the smallest.",
        formula=r"\max_i x_i - \min_i x_i",
        keeps="contrast",
        loses="level",
        write=write_range,
        mergeable="maximum and minimum",
    ),
)

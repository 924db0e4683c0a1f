"""Weighted sums: the average, the sum, and means of several kinds."""

from __future__ import annotations

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.operator import Operator, Parameters, Reference


def write_avg(cells: Cells, parameters: Parameters) -> Tensor:
    """Σ w·x / divisor; the divisor is Σ w unless the regions name another."""
    if cells.divisor is None:
        return cells.mean(cells.values)
    return cells.sum(cells.values) / cells.divisor


def write_sum(cells: Cells, parameters: Parameters) -> Tensor:
    """Σ w·x."""
    return cells.sum(cells.values)


OPERATORS = (
    Operator(
        name="avg",
        family="means",
        summary="The average of each region.",
        formula=r"\frac{1}{n}\sum_i x_i",
        keeps="the overall level",
        loses="peaks, and where anything was",
        write=write_avg,
        references=(Reference("Lin, Chen, Yan", 2013, "Network in network", "1312.4400"),),
        linear=True,
        mergeable="sum and count",
    ),
    Operator(
        name="sum",
        family="means",
        summary="The sum of each region: how much there is, so that counting works.",
        formula=r"\sum_i x_i",
        keeps="strength and number together",
        loses="the region's size: twice the region, twice the sum",
        write=write_sum,
        linear=True,
        answers="sum",
        mergeable="the sum",
    ),
)

"""The k largest values in the order in which they stand."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from graphs.operators.cells import LOWEST, Cells
from graphs.operators.expression import Tensor, Vjp, constant, emit, where
from graphs.operators.operator import Operator, Parameters, Reference


class KMax(Parameters):
    """Parameters of `kmax`."""

    k: int = Field(1, ge=1, le=1024, description="How many values come out for each region.")


def write_kmax(cells: Cells, parameters: KMax) -> Tensor:
    """The k largest, in the order in which they stand in the region; zeros after them where it has fewer cells."""
    x = _lengthened(cells.fill(cells.values, LOWEST), parameters.k)
    graph = x.graph
    k = constant(graph, [parameters.k], np.int64)
    _, found = graph.op_pair("TopK", [x.value, k.value], axis=-1, largest=1, sorted=1)
    places = Tensor(graph, found, x.thin)
    beyond = x.length()
    kept = places.positions().cast(graph.dtype).less(cells.count())
    keys, _ = graph.op_pair("TopK", [where(kept, places, beyond).value, k.value], axis=-1, largest=0, sorted=1)
    ordered = Tensor(graph, keys, x.thin)
    there = ordered.less(beyond)
    index = where(there, ordered, constant(graph, 0, np.int64))

    def vjp(g: Tensor) -> Tensor:
        return emit("ScatterElements", (x.ones_like() * 0.0, index, g), x.thin, axis=-1, reduction="add")

    values = emit("GatherElements", (x, index), x.thin, [(x, vjp)], axis=-1)
    return where(there, values, 0.0)


def _lengthened(x: Tensor, more: int) -> Tensor:
    """Put −∞ after the cells, so that there are enough of them to choose from."""
    graph = x.graph
    zero, axis = constant(graph, [0], np.int64), constant(graph, [2], np.int64)
    length = x.length().reshape([1])
    pads = constant(graph, [0, more], np.int64)
    back: Vjp = lambda g: emit("Slice", (g, zero, length, axis), x.thin)  # noqa: E731
    return emit("Pad", (x, pads, constant(graph, LOWEST), axis), (*x.thin[:-1], False), [(x, back)])


OPERATORS = (
    Operator(
        name="kmax",
        family="orders",
        summary="The k largest values of each region in the order in which they stand there: k·C channels.",
        formula=r"(x_i)_{i \in \operatorname{top}_k},\ i\ \text{ascending}",
        keeps="the strongest responses and their order, which a sentence or a sound needs",
        loses="their distances",
        write=write_kmax,
        parameters=KMax,
        answer=lambda channels, parameters: int(parameters.k),
        references=(
            Reference(
                "Kalchbrenner, Grefenstette, Blunsom",
                2014,
                "A convolutional neural network for modelling sentences",
                "1404.2188",
            ),
        ),
        mergeable="the k largest with their positions",
    ),
)

"""A statistic over gathered cells as one ONNX graph: forwards, or its gradient; for every dtype and every rule about NaN."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor, constant, emit, placeholder, where
from graphs.operators.functions import transpose
from graphs.operators.gradient import gradient
from graphs.operators.graph import Graph
from graphs.operators.operator import Operator, Parameters

Nan = Literal["none", "propagate", "omit"]


@dataclass(frozen=True)
class Variant:
    """Which graph of an operator.

    Attributes:
        dtype: of the input, by name: what ONNX Runtime reduces (float16/32/64, int8/32/64, uint8).
        arithmetic: dtype that it is computed in; that of the input for integers that are only compared.
        output: dtype of the answer.
        gathered: there is an `index`; without it the one region is the whole plane.
        weighted: there is a `weight`.
        divided: there is a `divisor`.
        nan: what NaN does. `none`: there is none in the input; the other two cost a pass.
        action: forwards, its gradient by the input, or the position in the plane that the maximum came from.
    """

    dtype: str
    arithmetic: str
    output: str
    gathered: bool = True
    weighted: bool = False
    divided: bool = False
    nan: Nan = "none"
    action: Literal["pool", "gradient", "indices"] = "pool"


def compose(operator: Operator, parameters: Parameters, variant: Variant) -> bytes:
    """Write the graph.

    Inputs: `x` (B,L), or (N,C,L) for joint operators, and `index` int (r,n); without an index `x` is (B,1,n), or (N,1,C,n).
    `weight` (1,r,n) and `divisor` (1,r,1), for joint operators (1,r,1,n) and (1,r,1,1), in the arithmetic's dtype; the
    operator's fed parameters by name; for gradients `grad_output`, of the answer's shape, in the arithmetic's dtype.

    Outputs: `y` (B,r,K), or (N,r,D); or `indices` int64 (B,r,1); or `slots` (B,r·n), or (N,C,r·n): the gradient by each cell as it
    was gathered, which `compose_scatter`'s graph brings home.
    """
    graph = Graph(variant.arithmetic)
    cells = _gather(graph, operator.joint, variant)
    lost: Tensor | None = None
    if variant.nan != "none":
        nan = cells.values.is_nan()
        if variant.nan == "omit":
            cells = _omit(cells, nan, operator.joint)
        elif variant.action == "pool":
            seen = nan if cells.present is None else nan & cells.present
            lost = seen.cast(variant.arithmetic).max()
        elif operator.answers == "same":
            # What is asked here is where something comes from: NaN counts as the most extreme value, as in PyTorch.
            extreme = float("-inf") if operator.name == "min" else float("inf")
            cells = replace(cells, values=where(nan, extreme, cells.values))
    if variant.action == "indices":
        return graph.build({"indices": _indices(graph, cells, operator, variant).value})
    if variant.action == "gradient":
        cells.values.moving = True
    y = operator.write(cells, parameters)
    if cells.weight is not None and not operator.together and np.dtype(variant.arithmetic).kind == "f":
        empty = cells.weight.max().equal(0.0)
        y = where(empty.reshape([0, 0, -1], [False, False, True]) if operator.joint else empty, 0.0, y)
    if variant.action == "gradient":
        return graph.build({"slots": _slots(graph, cells, y, operator.joint).value})
    if lost is not None:
        poisoned = lost.max(2).reshape([0, 0, -1], [False, False, True]) if operator.joint else lost
        poisoned = poisoned.max(1) if operator.together else poisoned
        y = where(poisoned.greater(0.5), float("nan"), y)
    return graph.build({"y": (y if variant.output == variant.arithmetic else y.cast(variant.output)).value})


def compose_scatter(dtype: str, output: str) -> bytes:
    """Write the graph that sums what was read: `slots` (B,s) and `readers` int64 (l,m) → `y` (B,l), of dtype `output`.

    `readers` says for each cell which slots read it, s where there are fewer than m. So the adjoint of a gather is a gather: it
    gives the same sum in the same order each time, which adding in parallel does not.
    """
    graph = Graph(dtype)
    slots = placeholder(graph, "slots", ("B", "s"))
    readers = placeholder(graph, "readers", ("l", "m"), np.int64)
    nothing = slots.sum() * 0.0
    padded = emit("Concat", (slots, where(nothing.is_nan(), 0.0, nothing)), (False, False), axis=1)
    y = emit("Gather", (padded, readers), (False, False, False), axis=1).sum().reshape([0, -1])
    return graph.build({"y": (y if output == dtype else y.cast(output)).value})


def _gather(graph: Graph, joint: bool, variant: Variant) -> Cells:
    lead: tuple[int | str, ...] = ("N", "C") if joint else ("B",)
    shape = (*lead, "L") if variant.gathered else ("N", 1, "C", "n") if joint else ("B", 1, "n")
    x = placeholder(graph, "x", shape, variant.dtype)
    values = x if variant.dtype == variant.arithmetic else x.cast(variant.arithmetic)
    if variant.gathered:
        index = placeholder(graph, "index", ("r", "n"), np.int64)
        values = emit("Gather", (values, index), (False,) * (len(lead) + 2), axis=len(lead))
        values = transpose(values, 0, 2, 1, 3) if joint else values
    weight = divisor = None
    if variant.weighted:
        weight = placeholder(graph, "weight", (1, "r", 1, "n") if joint else (1, "r", "n"))
    if variant.divided:
        divisor = placeholder(graph, "divisor", (1, "r", 1, 1) if joint else (1, "r", 1))
    return Cells(values, weight, divisor)


def _omit(cells: Cells, nan: Tensor, joint: bool) -> Cells:
    """Take the cells that hold NaN out of their regions; in a joint operator those where any channel does."""
    lost = nan.cast(cells.values.graph.dtype)
    kept = 1.0 - (lost.max(2) if joint else lost)
    weight = kept if cells.weight is None else kept * cells.weight
    return Cells(where(nan, 0.0, cells.values), weight, None)


def _indices(graph: Graph, cells: Cells, operator: Operator, variant: Variant) -> Tensor:
    x = cells.values
    extreme = cells.min(x) if operator.name == "min" else cells.max(x)
    hit = x.equal(extreme) if cells.present is None else x.equal(extreme) & cells.present
    first = hit.cast(np.int32).argmax()  # absent cells hold anything, so the extreme itself is not asked where it is
    if not variant.gathered:
        return first
    index = placeholder(graph, "index", ("r", "n"), np.int64)
    chosen = emit("Equal", (cells.values.positions(), first))
    table = emit("Unsqueeze", (index, constant(graph, [0], np.int64)), (True, False, False))
    return emit("Where", (chosen, table, constant(graph, 0, np.int64))).sum()


def _slots(graph: Graph, cells: Cells, y: Tensor, joint: bool) -> Tensor:
    seed = placeholder(graph, "grad_output", ("N", "r", "D") if joint else ("B", "r", "K"))
    slots = gradient(y, cells.values, Tensor(graph, seed.value, y.thin))
    return transpose(slots, 0, 2, 1, 3).reshape([0, 0, -1]) if joint else slots.reshape([0, -1])

"""Functions of tensor expressions that the formulas need beside arithmetic, each with its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphs.operators.expression import Tensor, Vjp, constant, emit


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """e^x / Σ e^x along an axis."""
    y = emit("Softmax", (x,), x.thin, [(x, lambda g: y * (g - (g * y).sum(axis)))], axis=axis)
    return y


def top_k(x: Tensor, k: Tensor | int) -> Tensor:
    """The k largest along the last axis, in descending order; of equals the first. k: a scalar int64, at most the length."""
    count = k if isinstance(k, Tensor) else constant(x.graph, k, np.int64)
    operands = [x.value, count.reshape([1]).value]
    values, places = x.graph.op_pair("TopK", operands, axis=-1, largest=1, sorted=1)
    thin = (*x.thin[:-1], False)
    index = Tensor(x.graph, places, thin)

    def vjp(g: Tensor) -> Tensor:
        return emit("ScatterElements", (x.ones_like() * 0.0, index, g), x.thin, axis=-1)

    return Tensor(x.graph, values, thin, [(x, vjp)])


def transpose(x: Tensor, *axes: int) -> Tensor:
    """Axes in another order."""
    back = [axes.index(axis) for axis in range(x.rank)]
    thin = tuple(x.thin[axis] for axis in axes)
    return emit("Transpose", (x,), thin, [(x, lambda g: transpose(g, *back))], perm=list(axes))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products over the last two axes; the others broadcast, and the ranks are equal (at least 2)."""
    swap = (*range(a.rank - 2), a.rank - 1, a.rank - 2)
    thin = (*(x and y for x, y in zip(a.thin[:-2], b.thin[:-2], strict=True)), a.thin[-2], b.thin[-1])
    parents: list[tuple[Tensor, Vjp]] = [
        (a, lambda g: matmul(g, transpose(b, *swap)).fit(a)),
        (b, lambda g: matmul(transpose(a, *swap), g).fit(b)),
    ]
    return emit("MatMul", (a, b), thin, parents)


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Tensors whose last axis has length 1, side by side along it."""
    graph = parts[0].graph

    def part(place: int) -> Vjp:
        return lambda g: emit("Gather", (g, constant(graph, [place], np.int64)), (*g.thin[:-1], True), axis=-1)

    wide = [all(part.thin[axis] for part in parts) for axis in range(parts[0].rank - 1)]
    marks = [(tensor, part(place)) for place, tensor in enumerate(parts)]
    return emit("Concat", parts, (*wide, len(parts) == 1), marks, axis=-1)

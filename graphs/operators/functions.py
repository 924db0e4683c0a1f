"""Functions of tensor expressions that the formulas need beside arithmetic, each with its gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphs.operators.expression import Tensor, Vjp, constant, emit, where


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


def widen(x: Tensor, rank: int) -> Tensor:
    """Put axes of length 1 before the others, up to this rank. For parameters: a constant to gradients."""
    more = rank - x.rank
    return emit("Unsqueeze", (x, constant(x.graph, list(range(more)), np.int64)), (True,) * more + x.thin)


def norm(x: Tensor, axis: int = -1) -> Tensor:
    """√Σx² along an axis, kept, scaled by the largest so that squares neither overflow nor vanish; its derivative at 0 is 0."""
    scale = nonzero(x.detach().abs().max(axis))
    part = x / scale
    return (part * part).sum(axis).sqrt() * scale


def l2_normalize(x: Tensor, axis: int = -1, eps: Tensor | float = 1e-12) -> Tensor:
    """Make the norm 1: x / max(‖x‖₂, eps) along an axis."""
    return x / norm(x, axis).at_least(eps)


def nonzero(x: Tensor) -> Tensor:
    """x, but 1 where it is 0, to divide by."""
    return where(x.equal(0.0), 1.0, x)


def signed_sqrt(x: Tensor) -> Tensor:
    """sign(x)·√|x|; its derivative at 0 is 0 here, a subgradient, in place of ∞."""
    return x.sign() * x.abs().sqrt()


def solve(a: Tensor, b: Tensor, iterations: int) -> Tensor:
    """A⁻¹b for symmetric positive definite A, by so many steps of conjugate gradients from 0 (Hestenes, Stiefel 1952).

    The gradient is that of the solution, found the same way, not that of the steps.

    Args:
        a: (…,C,C).
        b: (…,C,1).
        iterations: in exact arithmetic C steps are enough.
    """

    def inner(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(u.rank - 2)

    matrix, residual = a.detach(), b.detach()
    direction, squares = residual, inner(residual, residual)
    x = residual * 0.0
    for _ in range(iterations):
        image = matmul(matrix, direction)
        pace = squares / nonzero(inner(direction, image))
        x, residual = x + pace * direction, residual - pace * image
        left = inner(residual, residual)
        direction, squares = residual + direction * (left / nonzero(squares)), left

    swap = (*range(a.rank - 2), a.rank - 1, a.rank - 2)

    def vjp_b(g: Tensor) -> Tensor:
        return solve(matrix, g, iterations)

    def vjp_a(g: Tensor) -> Tensor:
        return -matmul(solve(matrix, g, iterations), transpose(x, *swap))

    return Tensor(x.graph, x.value, x.thin, [(a, vjp_a), (b, vjp_b)])


def upper_triangle(x: Tensor) -> Tensor:
    """The entries of square matrices on and above the diagonal, row by row: (N,r,C,C) → (N,r,C(C+1)/2)."""
    column, row = x.positions(3), x.positions(2)
    chosen = emit("GreaterOrEqual", (column, row)).reshape([-1])
    order = emit("CumSum", (chosen.cast(np.int32), constant(x.graph, 0, np.int64)), (False,)).cast(np.int64)
    places = emit("Compress", (emit("Range", _span(chosen), (False,)), chosen), (False,))
    flat = x.reshape([0, 0, -1], [*x.thin[:2], False])

    def vjp(g: Tensor) -> Tensor:
        back = emit("Sub", (order, constant(x.graph, 1, np.int64)))  # below the diagonal some neighbour's; not used
        kept = emit("Reshape", (chosen, constant(x.graph, [1, 1, -1], np.int64)), (True, True, False))
        inside = emit("Max", (back, constant(x.graph, 0, np.int64)))
        return where(kept, emit("Gather", (g, inside), flat.thin, axis=2), 0.0)

    return emit("Gather", (flat, places), flat.thin, [(flat, vjp)], axis=2)


def _span(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `Range` needs to number the elements of a vector."""
    return constant(x.graph, 0, np.int64), x.length(0), constant(x.graph, 1, np.int64)


def abreast(a: Tensor, b: Tensor) -> Tensor:
    """Two tensors side by side along the last axis, of any lengths there."""
    begin, end = (constant(a.graph, [at], np.int64) for at in (0, 2**62))
    middle = a.length().reshape([1])
    axis = constant(a.graph, [a.rank - 1], np.int64)
    parents: list[tuple[Tensor, Vjp]] = [
        (a, lambda g: emit("Slice", (g, begin, middle, axis), a.thin)),
        (b, lambda g: emit("Slice", (g, middle, end, axis), b.thin)),
    ]
    thin = (*(one and other for one, other in zip(a.thin[:-1], b.thin[:-1], strict=True)), False)
    return emit("Concat", (a, b), thin, parents, axis=a.rank - 1)


def flatten(x: Tensor) -> Tensor:
    """(N,r,A,B) → (N,r,A·B), row-major."""
    return x.reshape([0, 0, -1], [x.thin[0], x.thin[1], x.thin[2] and x.thin[3]])

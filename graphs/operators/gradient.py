"""Reverse-mode differentiation of tensor expressions: the gradient of every operator of the catalogue comes from here."""

from __future__ import annotations

from graphs.operators.expression import Tensor


def gradient(y: Tensor, x: Tensor, seed: Tensor) -> Tensor:
    """Differentiate: Σ seed · ∂y/∂x, of x's shape. x must have been marked (`x.moving = True`) before y was written from it.

    Args:
        y: the result.
        x: what to differentiate by.
        seed: the gradient of y, of y's shape.
    """
    arriving: dict[Tensor, Tensor] = {y: seed}
    for tensor in reversed(_ordered(y)):
        g = arriving.pop(tensor, None) if tensor is not x else None
        if g is None:
            continue
        for parent, vjp in tensor.parents:
            share = vjp(g)
            arriving[parent] = arriving[parent] + share if parent in arriving else share
    return arriving[x] if x in arriving else x.ones_like() * 0.0


def _ordered(y: Tensor) -> list[Tensor]:
    """Everything that y depends on, each after what it was made of."""
    done: dict[Tensor, None] = {}
    stack: list[tuple[Tensor, bool]] = [(y, False)]
    while stack:
        tensor, expanded = stack.pop()
        if expanded:
            done[tensor] = None
        elif tensor not in done:
            stack.append((tensor, True))
            stack.extend((parent, False) for parent, _ in tensor.parents)
    return list(done)

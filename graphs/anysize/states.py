"""Partial states of poolings, one a tile, and their exact merging in any order: NumPy, in float64.

A pooling over an image that is cut into tiles is a reduction over disjoint sets of feature cells. What each tile gives of
its own cells (a *state*) is enough to get the reduction over all of them:

    sum          S                      Σ S_i
    max, min     M                      max M_i, min M_i
    topk         k values, sorted       the k largest (or smallest) of all
    exponential  ℓ, S                   ℓ = max ℓ_i,  S = Σ S_i·e^(ℓ_i − ℓ)          # true sum: S·e^ℓ
    moments      n, μ, M                n = Σ n_i,  μ = μ_a + δ·n_b/n,  M = M_a + M_b + δ²·n_a·n_b/n,  δ = μ_b − μ_a
    comoments    n, μ, M                as moments, with μ (…,C,1), M (…,C,C) and δδᵀ in place of δ²

ℓ has the rank of S, n is one number a sample.

Sources: Milakov, Gimelshein, arXiv:1805.02867 (exponential); Chan, Golub, LeVeque 1979 (moments). A tile that owns no
cells gives 0, −∞, +∞, or n = 0, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rule = Literal["sum", "max", "min", "topk", "exponential", "moments", "comoments"]

SIZES: dict[Rule, int] = {"sum": 1, "max": 1, "min": 1, "topk": 1, "exponential": 2, "moments": 3, "comoments": 3}
"""Arrays that a state of each rule consists of."""


@dataclass(frozen=True)
class State:
    """One partial state: the names of the trunk's outputs it consists of, and how two of them become one.

    Attributes:
        rule: how states merge.
        names: the arrays, in the order of the module's table.
        axis: of `topk`, the axis that the k values lie along.
        largest: of `topk`, whether the k largest are kept; else the k smallest.

    Raises:
        ValueError: not the number of names that the rule needs.
    """

    rule: Rule
    names: tuple[str, ...]
    axis: int = -1
    largest: bool = True

    def __post_init__(self) -> None:
        if len(self.names) != SIZES[self.rule]:
            raise ValueError(f"a state of rule {self.rule!r} has {SIZES[self.rule]} arrays, got names {self.names}")


Arrays = tuple[np.ndarray, ...]


class Merger:
    """Merges the states of one image's tiles, one tile at a time, in any order; nothing of a tile is kept.

    The result is the same up to float64 rounding (relative 1e-13) whatever the order; maxima and top-k are exact. NaN in any
    tile's state gives NaN.

    Args:
        states: what the trunk gives.
    """

    def __init__(self, states: Sequence[State]) -> None:
        self._states = tuple(states)
        self._merged: dict[State, Arrays] = {}

    def add(self, tile: Mapping[str, np.ndarray]) -> None:
        """Take in one tile.

        Args:
            tile: the trunk's outputs by name, one tile's slice of the batch (with its axis of length 1, or without).

        Raises:
            KeyError: an array of a state is missing.
            ValueError: an array has another shape than the tile's before.
        """
        for state in self._states:
            new = tuple(np.asarray(tile[name]) for name in state.names)
            if state.rule not in {"max", "min", "topk"}:
                new = tuple(array.astype(np.float64) for array in new)
            if state.rule == "exponential":
                new = _identity_of_zero(new)
            if state not in self._merged:
                self._merged[state] = new
                continue
            old = self._merged[state]
            for name, before, now in zip(state.names, old, new, strict=True):
                if before.shape != now.shape:
                    raise ValueError(f"state {name!r}: expected shape {before.shape} as before, got {now.shape}")
            with np.errstate(invalid="ignore", over="ignore"):  # infinite features: ∞ − ∞ is NaN, as in one sum
                self._merged[state] = _merge(state, old, new)

    def result(self) -> dict[str, np.ndarray]:
        """Give the merged states by name, as the head takes them: float64, but of `max`, `min` and `topk` their own dtype.

        Raises:
            ValueError: no tile was added.
        """
        if len(self._merged) != len(set(self._states)):
            raise ValueError("expected one tile or more to merge, got none")
        return {
            name: array for state in self._states for name, array in zip(state.names, self._merged[state], strict=True)
        }


def _merge(state: State, a: Arrays, b: Arrays) -> Arrays:
    if state.rule == "sum":
        return (a[0] + b[0],)
    if state.rule == "max":
        return (np.maximum(a[0], b[0]),)
    if state.rule == "min":
        return (np.minimum(a[0], b[0]),)
    if state.rule == "topk":
        return (_topk(a[0], b[0], state.axis, state.largest),)
    if state.rule == "exponential":
        return _exponential(a, b)
    return _moments(a, b, outer=state.rule == "comoments")


def _topk(a: np.ndarray, b: np.ndarray, axis: int, largest: bool) -> np.ndarray:
    """Keep the k first of both; NaN comes first, so that it is kept, as torch's topk has it."""
    k = a.shape[axis]
    both = np.concatenate([a, b], axis)
    ascending = np.sort(both if largest else -both, axis)  # NaN last
    kept = np.take(ascending, np.arange(2 * k - 1, k - 1, -1), axis)
    return kept if largest else -kept


def _identity_of_zero(state: Arrays) -> Arrays:
    """Give ℓ = −∞ to what sums to 0: its scale says nothing, and may be NaN where a tile owns no cells."""
    log, total = state
    shape = np.broadcast_shapes(log.shape, total.shape)
    return np.where(total == 0, -np.inf, np.broadcast_to(log, shape)), np.broadcast_to(total, shape)


def _exponential(a: Arrays, b: Arrays) -> Arrays:
    log = np.maximum(a[0], b[0])
    total = np.zeros(log.shape)
    for old_log, old in (a, b):
        scaled = old * np.exp(old_log - log)
        total = total + np.where(old == 0, 0.0, scaled)
    return log, total


def _moments(a: Arrays, b: Arrays, *, outer: bool) -> Arrays:
    (n_a, mean_a, m_a), (n_b, mean_b, m_b) = a, b
    n = n_a + n_b
    shares = np.maximum(n, 1)  # two tiles that own nothing: anything but 0 to divide by
    # A tile without cells has no mean (0/0); it weighs nothing.
    mean_a, m_a = np.where(_as(n_a, mean_a) == 0, 0.0, mean_a), np.where(_as(n_a, m_a) == 0, 0.0, m_a)
    mean_b, m_b = np.where(_as(n_b, mean_b) == 0, 0.0, mean_b), np.where(_as(n_b, m_b) == 0, 0.0, m_b)
    delta = mean_b - mean_a
    mean = mean_a + delta * _as(n_b / shares, mean_a)
    square = delta @ np.swapaxes(delta, -1, -2) if outer else delta * delta
    return n, mean, m_a + m_b + square * _as(n_a * n_b / shares, m_a)


def _as(count: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give a count, one a sample, with axes of length 1 so that it broadcasts against an array of any rank."""
    return count.reshape(count.shape + (1,) * (like.ndim - count.ndim))

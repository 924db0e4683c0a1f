"""From scores to probabilities and their order: for one image, or for all of a batch at once, which takes hardly longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np


def probabilities(scores: np.ndarray, activation: Literal["softmax", "sigmoid", "none"]) -> np.ndarray:
    """Turn a classifier's output into probabilities, in float64; any finite scores, however large.

    Args:
        scores: (K,) or (N,K), float.
        activation: the card's.

    Returns:
        The same shape, float32. softmax: e^(x−m) / Σ e^(x−m) with m the maximum, so that nothing overflows.
    """
    x = scores.astype(np.float64)
    if activation == "softmax":
        e = np.exp(x - np.maximum.reduce(x, axis=-1, keepdims=True))
        x = e / np.add.reduce(e, axis=-1, keepdims=True)
    elif activation == "sigmoid":
        x = np.exp(-np.logaddexp(0.0, -x))
    return x.astype(np.float32)


def order(p: np.ndarray) -> np.ndarray:
    """Give the classes' indices, the most probable first, the lower index first among equals.

    Args:
        p: (K,) or (N,K).

    Returns:
        The same shape, int64.
    """
    return (-p).argsort(axis=-1, kind="stable")


def rank_batch(
    outputs: Sequence[np.ndarray], *, place: int, activation: Literal["softmax", "sigmoid", "none"]
) -> Sequence[np.ndarray]:
    """Add probabilities (N,K) and their order (N,K) to a batch's outputs.

    Args:
        outputs: N of each.
        place: of the scores (N,K) among them.
        activation: the card's.
    """
    p = probabilities(outputs[place], activation)
    return [*outputs, p, order(p)]

"""Poolings that see all channels: random parameters of each, features, and tables of regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

C, D, H, K, L = 5, 6, 4, 3, 40

Draw = Callable[[np.random.Generator], dict[str, Any]]

JOINT: dict[str, Draw] = {
    "bilinear": lambda rng: {},
    "compact_bilinear": lambda rng: {name: rng.choice([-1.0, 1.0], (D, C)) for name in ("first", "second")},
    "covariance": lambda rng: {},
    "generalized_max": lambda rng: {"regularization": float(rng.uniform(0.5, 2))},
    "attention": lambda rng: {"query": rng.standard_normal((2, C))},
    "mil": lambda rng: {"hidden": rng.standard_normal((H, C)), "score": rng.standard_normal((2, H))},
    "gated_mil": lambda rng: {
        "hidden": rng.standard_normal((H, C)),
        "gate": rng.standard_normal((H, C)),
        "score": rng.standard_normal((1, H)),
    },
    "simpool": lambda rng: {"gamma": float(rng.uniform(1, 3))},
    "attentive_statistics": lambda rng: {
        "hidden": rng.standard_normal((H, C)),
        "offset": rng.standard_normal(H),
        "score": rng.standard_normal((1, H)),
    },
    "vlad": lambda rng: {"centres": rng.standard_normal((K, C)), "alpha": float(rng.uniform(0.1, 2))},
    "fisher": lambda rng: {
        "means": rng.standard_normal((K, C)),
        "sigmas": rng.uniform(0.5, 2, (K, C)),
        "priors": rng.dirichlet(np.ones(K)),
    },
    "capsule": lambda rng: {"transforms": rng.standard_normal((K, D, C))},
    "crow": lambda rng: {"a": float(rng.uniform(1, 3)), "b": float(rng.uniform(1, 3))},
}


def tables(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four regions of 8 cells: soft weights, three absent, only one present, none at all."""
    index, weight = rng.integers(0, L, (4, 8)), rng.uniform(0.2, 1, (4, 8))
    weight[1, [0, 3, 7]] = 0
    weight[2, 1:] = 0
    weight[3] = 0
    return index, weight


def tensor(name: str, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((2, C, L))
    if name == "crow":  # half of the channels are not active, but nowhere are none: PyTorch's derivative of 0^p is NaN
        x = np.maximum(x, 0)
        x[:, 0] += 0.5
    return x

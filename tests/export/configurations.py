"""Every pooling head in every configuration that is tested, with maps to pool and the bound on what comes out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from export.heads import create_head

SIZES = [(1, 1), (3, 5), (7, 7), (14, 14), (1, 9)]
CHANNELS = 5
FLOAT32 = 2e-6
"""Relative to the largest value of the embedding: a dozen roundings of float32 (6e-8), and powers and logarithms."""

CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    ("gap", {}),
    ("gmp", {}),
    ("avgmax", {}),
    ("catavgmax", {}),
    ("sum", {}),
    ("l2", {}),
    ("l2", {"mean": True}),
    ("lp", {"p": 3.0}),
    ("lp", {"p": 1.5, "mean": True}),
    ("gem", {"p": 3.0}),
    ("gem", {"p": 2.5, "per_channel": True}),
    ("lse", {"r": 10.0}),
    ("lse", {"r": 4.0, "per_channel": True, "learned": False}),
    ("softmax", {"alpha": 1.0}),
    ("softmax", {"alpha": -2.0, "per_channel": True}),
    ("mixed", {"alpha": 0.3}),
    ("mixed", {"alpha": 0.8, "per_channel": True}),
    ("gated", {}),
    ("gated", {"per_channel": False}),
    ("stochastic", {}),
    ("attention", {"hidden": 7}),
    ("attention", {"hidden": 7, "gated": False}),
    ("spp", {}),
    ("spp", {"levels": [1, 2, 3, 6], "kind": "avg"}),
    ("quadrants", {}),
    ("quadrants", {"kind": "max"}),
]
IDS = [f"{name}-{json.dumps(config)}" for name, config in CONFIGURATIONS]
every_configuration = pytest.mark.parametrize(("name", "config"), CONFIGURATIONS, ids=IDS)
GLOBAL = [item for item in CONFIGURATIONS if item[0] not in {"spp", "quadrants"}]
every_global = pytest.mark.parametrize(("name", "config"), GLOBAL, ids=[f"{n}-{json.dumps(c)}" for n, c in GLOBAL])
MEANS = [item for item in CONFIGURATIONS if item[0] != "sum" and (item[0] not in {"l2", "lp"} or item[1].get("mean"))]
"""All but the sums, which grow with the area."""
every_mean = pytest.mark.parametrize(("name", "config"), MEANS, ids=[f"{n}-{json.dumps(c)}" for n, c in MEANS])
every_size = pytest.mark.parametrize(("height", "width"), SIZES)

Features = npt.NDArray[np.float32]


def make(name: str, config: dict[str, Any], rng: np.random.Generator) -> torch.nn.Module:
    """A head in evaluation, its parameters moved a little off their start."""
    head = create_head(name, CHANNELS, **config).eval()
    for parameter in head.parameters():
        if parameter.requires_grad:
            parameter.data += torch.from_numpy(rng.uniform(-0.2, 0.2, parameter.shape)).float()
    return head


def draw(rng: np.random.Generator, height: int, width: int, n: int = 3) -> Features:
    return rng.normal(0.3, 1, (n, CHANNELS, height, width)).astype(np.float32)

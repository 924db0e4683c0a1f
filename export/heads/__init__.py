"""Pooling heads as configuration: a name and plain data in, a module from features (N,C,H,W) to an embedding out.

Functional → module → network: functional.py and pyramid.py are the maths, fixed.py and learned.py hold the parameters,
export/network.py puts a head between a backbone and a classifier.
"""

from __future__ import annotations

from typing import Any

from export.heads.fixed import (
    L2,
    AverageMax,
    CatAverageMax,
    GlobalAverage,
    GlobalMax,
    Lp,
    Quadrants,
    SpatialPyramid,
    Stochastic,
    Sum,
)
from export.heads.head import Head, knobs
from export.heads.learned import Attention, Gated, GeneralisedMean, LogSumExp, Mixed, SoftmaxWeighted

_CLASSES: tuple[type[Head], ...] = (
    GlobalAverage,
    GlobalMax,
    AverageMax,
    CatAverageMax,
    Sum,
    L2,
    Lp,
    GeneralisedMean,
    LogSumExp,
    SoftmaxWeighted,
    Mixed,
    Gated,
    Stochastic,
    Attention,
    SpatialPyramid,
    Quadrants,
)

HEADS: dict[str, type[Head]] = {head.pooling: head for head in _CLASSES}
"""Every head by the name that a configuration calls it."""


def create_head(name: str, num_features: int, **config: Any) -> Head:
    """Build a pooling head from its configuration.

    Args:
        name: a key of HEADS, such as `gem`.
        num_features: channels C of the features it will pool.
        config: its knobs, plain data; `knobs(HEADS[name])` lists them with their defaults.

    Raises:
        ValueError: an unknown name or knob, or a value out of range.
    """
    if name not in HEADS:
        raise ValueError(f"unknown pooling head {name!r}; there are {', '.join(HEADS)}")
    known = knobs(HEADS[name])
    unknown = sorted(config.keys() - known.keys())
    if unknown:
        takes = f"takes {', '.join(known)}" if known else "takes no configuration"
        raise ValueError(f"pooling head {name!r} does not know {', '.join(unknown)}; it {takes}")
    return HEADS[name](num_features, **config)


__all__ = ["HEADS", "Head", "create_head", "knobs"]

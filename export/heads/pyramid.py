"""Pooling to a fixed number of bins, as pure functions of features (N,C,H,W), at any H, W >= 1; exported exactly.

What functional.py says of its functions holds here too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grid(x: Tensor, n: int, *, kind: str) -> Tensor:
    """Adaptive pooling to n×n bins: bin i of a side of length L covers positions ⌊iL/n⌋ … ⌈(i+1)L/n⌉ − 1.

    The same numbers as adaptive_avg_pool2d and adaptive_max_pool2d, which torch's exporter freezes to the traced size
    without a word. Here the bins' edges stay symbolic: one Slice and one reduction a bin, along the height, then along
    the width. That order is exact because a bin's columns are the same in all its rows.

    Args:
        x: features (N,C,H,W), floating point; L < n is allowed (bins then repeat positions).
        n: bins a side, >= 1.
        kind: `avg` or `max`.

    Returns:
        pooled (N,C,n,n), same dtype.

    Raises:
        ValueError: another kind.

    Source: bins of torch's AdaptiveAvgPool2d; the idea, He et al., arXiv:1406.4729.
    """
    if kind not in {"avg", "max"}:
        raise ValueError(f"kind must be 'avg' or 'max', got {kind!r}")

    def along(y: Tensor, axis: int) -> Tensor:
        length = y.shape[axis]
        # Not -(-a // n) for the ceiling: the exporter turns // into ONNX's Div, which rounds negative quotients towards
        # 0.
        edges = [(i * length // n, ((i + 1) * length + n - 1) // n) for i in range(n)]
        bins = [y.narrow(axis, start, end - start) for start, end in edges]
        return torch.stack([b.mean(axis) if kind == "avg" else b.amax(axis) for b in bins], axis)

    return along(along(x, 2), 3)


def pyramid(x: Tensor, levels: tuple[int, ...], *, kind: str) -> Tensor:
    """Spatial pyramid pooling: grids of several sizes, concatenated.

    Args:
        x: features (N,C,H,W), floating point.
        levels: bins a side of each grid, such as (1, 2, 4).
        kind: `avg` or `max`.

    Returns:
        embedding (N, C·Σn²), same dtype: level after level, in each one channel after channel, in each one row after
        row.

    Raises:
        ValueError: another kind.

    Source: He et al., arXiv:1406.4729.
    """
    return torch.cat([grid(x, n, kind=kind).flatten(1) for n in levels], 1)

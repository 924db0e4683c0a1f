"""Fractional pooling: windows at pseudorandom steps, so that a plane shrinks by any ratio."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphs.operators.regions.axis import Progressions
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.numbers import checked_plane, per_axis


def fractional(
    plane: Sequence[int],
    kernel: int | Sequence[int] | None,
    *,
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    samples: Sequence[float] | None = None,
    seed: int = 0,
) -> Grid:
    """Graham 2014 (arXiv 1412.6071), the pseudorandom sequences.

    Overlapping, with a kernel k: on an axis of L cells window i of o begins at ⌊(i + u)α⌋ − ⌊uα⌋ with α = (L − k) / (o − 1), the
    last at L − k, as in PyTorch. Disjoint, without a kernel: α = L / o, and each region ends where the next begins, the last at L.

    Args:
        plane: sizes of the pooled axes.
        kernel: cells of a window, or None for disjoint regions.
        output_size: windows on all axes, or on each.
        output_ratio: in its place, ⌊L · ratio⌋ windows, above 0 and below 1.
        samples: u in [0, 1) for each axis; None draws them from `seed`.
        seed: at least 0.

    Raises:
        RegionError: both or neither of output_size and output_ratio, or more windows than fit: o + k − 1 > L, or o > L.
    """
    sizes = checked_plane(plane)
    axes = len(sizes)
    output = _output(sizes, output_size, output_ratio)
    kernels = None if kernel is None else per_axis("kernel", kernel, axes, 1)
    for axis, (size, count) in enumerate(zip(sizes, output, strict=True)):
        taps = 1 if kernels is None else kernels[axis]
        if count + taps - 1 > size:
            raise RegionError(
                f"output_size: expected output_size + kernel − 1 to be at most the plane's {size}, got {count} + {taps} − 1"
            )
    drawn = np.random.default_rng(per_axis("seed", seed, 1, 0)[0]).random(axes) if samples is None else samples
    given = np.asarray(drawn, np.float64)
    if given.shape != (axes,) or not ((given >= 0) & (given < 1)).all():
        raise RegionError(f"samples: expected {axes} numbers from 0 to below 1, one per pooled axis")
    progressions = []
    for axis, (size, count) in enumerate(zip(sizes, output, strict=True)):
        u = float(given[axis])
        if kernels is None:
            edges = np.append(_starts(size / count, count, u), size)
            progressions.append(Progressions(size, edges[:-1], np.diff(edges)))
        else:
            last = size - kernels[axis]
            starts = _starts(last / (count - 1) if count > 1 else 0.0, count, u)
            starts[-1] = last
            progressions.append(Progressions(size, starts, np.array([kernels[axis]])))
    return Grid(sizes, tuple(progressions))


def _output(
    sizes: tuple[int, ...], output_size: int | Sequence[int] | None, output_ratio: float | Sequence[float] | None
) -> tuple[int, ...]:
    if (output_size is None) == (output_ratio is None):
        raise RegionError("expected one of output_size and output_ratio")
    if output_size is not None:
        return per_axis("output_size", output_size, len(sizes), 1)
    ratios = np.atleast_1d(np.asarray(output_ratio, np.float64))
    if ratios.ndim != 1 or ratios.size not in {1, len(sizes)} or not ((ratios > 0) & (ratios < 1)).all():
        raise RegionError(
            f"output_ratio: expected one number above 0 and below 1, or {len(sizes)}, one per pooled axis"
        )
    output = tuple(int(size * ratio) for size, ratio in zip(sizes, np.broadcast_to(ratios, len(sizes)), strict=True))
    if min(output) < 1:
        raise RegionError(f"output_ratio: leaves nothing of a plane of {'×'.join(map(str, sizes))} cells")
    return output


def _starts(alpha: float, count: int, u: float) -> NDArray[np.int64]:
    return ((np.arange(count) + u) * alpha).astype(np.int64) - int(u * alpha)

"""Weights that fall with the distance from a region's centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.grid import Floats, Grid, Profile
from graphs.operators.regions.joined import Joined


def centred(regions: Grid | Joined, profile: Profile) -> Grid | Joined:
    """The same regions, their cells weighted; an average divides by the sum of the weights inside the plane.

    The centre of a window is that of its whole kernel, also where the plane's edge cuts it.
    """
    if isinstance(regions, Joined):
        parts = [part for part in regions.parts if isinstance(part, Grid)]
        assert len(parts) == len(regions.parts), "only grids know their centres"
        return Joined(tuple(replace(part, profile=profile, divisors=None) for part in parts))
    return replace(regions, profile=profile, divisors=None)


def gaussian(sigma: float | Sequence[float] | None = None) -> Profile:
    """exp(−Σ_a δ_a² / 2σ_a²), the distances δ in cells.

    Where a window's centre lies so far outside the plane that all its weights would vanish, they are taken relative to the
    largest, which changes no average.

    Args:
        sigma: in cells, for all axes or for each; None: a quarter of the region's extent on each axis.

    Raises:
        RegionError: a sigma that is not finite and above 0.
    """
    sigmas = None if sigma is None else np.atleast_1d(np.asarray(sigma, np.float64))
    if sigmas is not None and not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
        raise RegionError(f"sigma: expected finite and above 0, got {sigmas.min():g}")
    clamped = None if sigmas is None else np.maximum(sigmas, 1e-100)  # below it only the nearest cells count anyway

    def profile(deltas: Sequence[Floats], halves: Sequence[Floats]) -> Floats:
        axes = len(deltas)
        if clamped is None:
            scaled = [delta / (half / 2) for delta, half in zip(deltas, halves, strict=True)]
        elif clamped.size in {1, axes}:
            scaled = [delta / each for delta, each in zip(deltas, np.broadcast_to(clamped, axes), strict=True)]
        else:
            raise RegionError(f"sigma: expected one number or {axes}, one per pooled axis, got {clamped.size}")
        exponents = [each**2 / 2 for each in scaled]
        for number, exponent in enumerate(exponents):
            nearest = exponent.min(axis=axes + number, keepdims=True)
            exponents[number] = exponent - np.where(nearest > 200, nearest, 0)
        return np.exp(-reduce(np.add, exponents))

    return profile


def inverse_distance() -> Profile:
    """1 / (1 + ‖δ‖), the distance δ in cells."""

    def profile(deltas: Sequence[Floats], halves: Sequence[Floats]) -> Floats:
        return 1 / (1 + np.sqrt(reduce(np.add, [delta**2 for delta in deltas])))

    return profile


def raised_cosine() -> Profile:
    """Π_a ½(1 + cos(π δ_a / h_a)), h half the region's extent: 1 in the centre, falling to 0 at the region's edge."""

    def profile(deltas: Sequence[Floats], halves: Sequence[Floats]) -> Floats:
        factors = [np.cos(math.pi / 2 * delta / half) ** 2 for delta, half in zip(deltas, halves, strict=True)]
        return reduce(np.multiply, factors)

    return profile

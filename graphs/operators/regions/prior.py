"""The whole plane as one region, its cells weighted by their distance from the centre."""

from __future__ import annotations

import numpy as np

from graphs.operators.regions.axis import Progressions
from graphs.operators.regions.grid import Grid, Profile
from graphs.operators.regions.numbers import checked_plane
from graphs.operators.regions.whole import Whole


def prior(plane: tuple[int, ...], profile: Profile) -> Whole:
    """Weigh the cells of the plane by a profile around its centre.

    Raises:
        RegionError: not 1 to 3 axes, or one without cells.
    """
    sizes = checked_plane(plane)
    axes = tuple(Progressions(size, np.array([0]), np.array([size])) for size in sizes)
    return Whole(sizes, Grid(sizes, axes, profile=profile))

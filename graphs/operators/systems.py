"""From a request's parameters to a region system: exactly one way of naming regions is taken, the whole plane if there is none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphs.operators.operator import Operator, Parameters
from graphs.operators.regions.adaptive import adaptive, pyramid, strips
from graphs.operators.regions.align import aligned
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.boxes import boxes
from graphs.operators.regions.masked import masked
from graphs.operators.regions.segments import segments
from graphs.operators.regions.whole import whole
from graphs.operators.regions.windows import WindowGeometry, window_geometry, windows
from graphs.operators.request import RegionParameters

SYSTEMS = ("kernel", "output_size", "levels", "strips", "boxes", "labels", "groups")
"""The parameters that name regions; `boxes` takes an `output_size` too."""

_BELONGS = {
    "stride": ("kernel",),
    "padding": ("kernel",),
    "dilation": ("kernel",),
    "ceil_mode": ("kernel",),
    "count_include_pad": ("kernel",),
    "divisor_override": ("kernel",),
    "spatial_scale": ("boxes",),
    "align": ("boxes",),
    "sampling_ratio": ("boxes",),
    "segments": ("labels",),
}
"""Parameters that mean something only beside another."""


def check_named(given: frozenset[str]) -> None:
    """Refuse parameters that contradict each other, or that mean nothing beside the others.

    Args:
        given: names of the parameters and arrays that came.

    Raises:
        RegionError: two ways of naming regions, or a parameter without the one it belongs to.
    """
    named = [name for name in SYSTEMS if name in given]
    if len(named) > 1 and named != ["output_size", "boxes"]:
        raise RegionError(f"expected one way of naming regions, got {' and '.join(named)}")
    for name, owners in _BELONGS.items():
        if name in given and not given & set(owners):
            raise RegionError(f"{name}: only with {' or '.join(owners)}")


def geometry_of(plane: tuple[int, ...], request: RegionParameters) -> WindowGeometry:
    """Resolve the windows of a request that has a kernel."""
    assert request.kernel is not None
    return window_geometry(
        plane,
        request.kernel,
        request.stride,
        request.padding,  # type: ignore[arg-type]  # pairs come as lists; window_geometry checks them
        dilation=1 if request.dilation is None else request.dilation,
        ceil_mode=request.ceil_mode,
    )


def regions_of(
    operator: Operator,
    parameters: Parameters,
    plane: tuple[int, ...],
    request: RegionParameters,
    arrays: Mapping[str, np.ndarray],
    *,
    max_regions: int,
) -> Regions:
    """Make the region system of a request over one plane.

    Args:
        operator: may bring its own.
        parameters: the operator's.
        plane: sizes of the pooled axes.
        request: the parameters.
        arrays: `boxes` (K, 2·axes), `labels` and `mask` of the plane's shape, where they came.
        max_regions: more are refused.

    Raises:
        RegionError: with the rule and the numbers.
    """
    system: Regions
    if operator.regions is not None:
        _check_alone(operator, arrays)
        system = operator.regions(plane, request, parameters)
    elif "boxes" in arrays:
        bins = _bins(request.output_size)
        if request.align:
            if not operator.linear:
                raise RegionError(f"align: interpolated samples are for sums and averages, not for {operator.name!r}")
            system = aligned(
                plane,
                arrays["boxes"],
                bins,
                spatial_scale=request.spatial_scale,
                sampling_ratio=request.sampling_ratio,
                max_regions=max_regions,
            )
        else:
            system = boxes(plane, arrays["boxes"], bins, spatial_scale=request.spatial_scale, max_regions=max_regions)
    elif "labels" in arrays:
        system = segments(plane, arrays["labels"], request.segments, max_regions=max_regions)
    elif request.kernel is not None:
        geometry = geometry_of(plane, request)
        system = windows(
            geometry, count_include_pad=request.count_include_pad, divisor_override=request.divisor_override
        )
    elif request.output_size is not None:
        system = adaptive(plane, request.output_size, max_regions=max_regions)
    elif request.levels is not None:
        levels = request.levels if isinstance(request.levels, list) else [request.levels]
        system = pyramid(plane, levels, max_regions=max_regions)
    elif request.strips:
        system = strips(plane)
    else:
        system = whole(plane)
    return masked(system, arrays["mask"]) if "mask" in arrays else system


def _check_alone(operator: Operator, arrays: Mapping[str, np.ndarray]) -> None:
    for name in ("boxes", "labels"):
        if name in arrays:
            raise RegionError(f"{name}: {operator.name!r} brings its own regions")


def _bins(output_size: int | list[int | None] | None) -> int | list[int] | None:
    if isinstance(output_size, list):
        if None in output_size:
            raise RegionError("output_size: expected a number for each axis of a box, got none")
        return [bins for bins in output_size if bins is not None]
    return output_size

"""Regions of interest: boxes in coordinates of the input, pooled over the cells they cover."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.numbers import MAX_REGIONS, checked_plane, limited, per_axis
from graphs.operators.regions.rectangles import Rectangles

Floats = NDArray[np.float64]


def checked_boxes(plane: tuple[int, ...], boxes: ArrayLike, spatial_scale: float) -> tuple[Floats, Floats]:
    """Read boxes and scale them to the plane.

    A box begins and ends at most one cell outside the plane, so that one of the whole input passes also where the network's
    strides have rounded the plane's size down; what hangs over is clipped by those who pool it.

    Args:
        plane: sizes of the pooled axes, A of them.
        boxes: (N, 2·A): x1, y1, x2, y2 for two axes, the last axis first; x1, x2 for one; x1, y1, z1, x2, y2, z2 for three.
        spatial_scale: cells of the plane for a unit of the coordinates.

    Returns:
        The beginnings and ends (N, A) in cells, in the plane's order of axes.

    Raises:
        RegionError: another shape, no box, a scale that is not above 0, or, with its number, a box that is not finite, ends
            before it begins or lies outside the plane.
    """
    axes = len(plane)
    if not (math.isfinite(spatial_scale) and spatial_scale > 0):
        raise RegionError(f"spatial_scale: expected finite and above 0, got {spatial_scale:g}")
    try:
        given = np.asarray(boxes, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise RegionError(f"boxes: expected {2 * axes} numbers for each box") from error
    if given.ndim != 2 or given.shape[1] != 2 * axes or len(given) < 1:
        raise RegionError(f"boxes: expected at least one box of {2 * axes} numbers, got the shape {list(given.shape)}")
    _refuse(~np.isfinite(given).all(axis=1), given, "expected finite numbers")
    begin, end = given[:, axes - 1 :: -1], given[:, : axes - 1 : -1]
    _refuse((end < begin).any(axis=1), given, "expected an end not before its beginning")
    with np.errstate(over="ignore"):
        begin, end = begin * spatial_scale, end * spatial_scale
    outside = (begin < -1) | (end > np.array(plane) + 1)
    sizes = "×".join(map(str, plane))
    _refuse(
        outside.any(axis=1), given, f"with spatial_scale {spatial_scale:g} it lies outside the plane of {sizes} cells"
    )
    return begin, end


def checked_grid(
    plane: tuple[int, ...], boxes: int, output_size: int | Sequence[int] | None, max_regions: int
) -> list[int]:
    """Bins of a box on each axis, 1 where none are asked for.

    Raises:
        RegionError: a number below 1, or too many bins in all boxes together.
    """
    bins = list(per_axis("output_size", 1 if output_size is None else output_size, len(plane), 1))
    limited(boxes * math.prod(bins), max_regions)
    return bins


def boxes(
    plane: Sequence[int],
    boxes: ArrayLike,
    output_size: int | Sequence[int] | None = None,
    *,
    spatial_scale: float = 1.0,
    max_regions: int = MAX_REGIONS,
) -> Rectangles:
    """RoI pooling (Girshick 2015, arXiv 1504.08083): corners rounded to cells, both included, and the box cut into bins.

    A box from cell b to cell e has s = max(e − b + 1, 1) cells; bin i of n reads b + ⌊i·s/n⌋ … b + ⌈(i + 1)·s/n⌉ − 1, as far as
    they lie in the plane. Halves are rounded away from 0, as in C.

    Args:
        plane: sizes of the pooled axes.
        boxes: as in `checked_boxes`.
        output_size: bins of each box; None: the box is one region, and the answer's shape (N,) and not (N, bins …).
        spatial_scale: cells of the plane for a unit of the coordinates.
        max_regions: at most so many bins in all boxes.

    Raises:
        RegionError: a box, a scale or a number of bins as `checked_boxes` and `checked_grid` refuse them.
    """
    sizes = checked_plane(plane)
    begin, end = checked_boxes(sizes, boxes, spatial_scale)
    bins = checked_grid(sizes, len(begin), output_size, max_regions)
    first = _rounded(begin)
    extent = np.maximum(_rounded(end) - first + 1, 1)
    shape = (len(begin), *bins)
    start, count = np.empty((*shape, len(sizes)), np.int64), np.empty((*shape, len(sizes)), np.int64)
    for axis, (size, pieces) in enumerate(zip(sizes, bins, strict=True)):
        number = np.arange(pieces)
        low = first[:, axis, None] + number * extent[:, axis, None] // pieces
        high = first[:, axis, None] - (-(number + 1) * extent[:, axis, None] // pieces)
        low, high = np.clip(low, 0, size), np.clip(high, 0, size)
        apart = (len(begin), *(pieces if other == axis else 1 for other in range(len(sizes))))
        start[..., axis] = low.reshape(apart)
        count[..., axis] = (high - low).reshape(apart)
    answer = shape if output_size is not None else shape[:1]
    return Rectangles(sizes, answer, start.reshape(-1, len(sizes)), count.reshape(-1, len(sizes)))


def _rounded(values: Floats) -> NDArray[np.int64]:
    """To the nearest integer, halves away from 0."""
    whole = np.trunc(values)
    return (whole + np.trunc(2 * (values - whole))).astype(np.int64)


def _refuse(wrong: NDArray[np.bool_] | np.bool_, given: Floats, rule: str) -> None:
    if wrong.any():
        number = int(np.argmax(wrong))
        values = ", ".join(f"{value:g}" for value in given[number])
        raise RegionError(f"box {number} ({values}): {rule}")

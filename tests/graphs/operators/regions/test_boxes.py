"""Regions of interest, against loops written from the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphs.operators.regions.align import aligned
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.boxes import boxes
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


def draw(
    rng: np.random.Generator, axes: int, halves: bool
) -> tuple[tuple[int, ...], np.ndarray, float, tuple[int, ...]]:
    """A plane, boxes of it (x first, up to a cell outside), a scale and bins."""
    plane = tuple(int(value) for value in rng.integers(1, 12, axes))
    scale = float(rng.choice([1.0, 0.5, 0.25]))
    count = int(rng.integers(1, 5))
    corners = np.sort(rng.uniform(-1, np.array(plane)[::-1, None, None] + 1, (axes, 2, count)), axis=1)
    if halves:
        corners = np.clip(np.round(corners * 2) / 2, -1, np.array(plane)[::-1, None, None] + 1)
    return (
        plane,
        corners.reshape(2 * axes, count)[corner_order(axes)].T / scale,
        scale,
        tuple(rng.integers(1, 5, axes).tolist()),
    )


def corner_order(axes: int) -> list[int]:
    """From (x1, x2, y1, y2) to (x1, y1, x2, y2)."""
    return [2 * axis for axis in range(axes)] + [2 * axis + 1 for axis in range(axes)]


def c_round(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def roi_pool(x: np.ndarray, box: np.ndarray, scale: float, bins: tuple[int, ...]) -> np.ndarray:
    """Girshick 2015: maxima of bins of the rounded box, its last cell included; 0 where the bin has no cell."""
    axes = x.ndim
    out = np.zeros(bins)
    for place in np.ndindex(*bins):
        window = []
        for axis, number in enumerate(place):
            begin, end = (c_round(box[corner + axes - 1 - axis] * scale) for corner in (0, axes))
            extent = max(end - begin + 1, 1)
            low = begin + number * extent // bins[axis]
            high = begin + math.ceil((number + 1) * extent / bins[axis] - 1e-9)
            window.append(slice(min(max(low, 0), x.shape[axis]), min(max(high, 0), x.shape[axis])))
        cells = x[tuple(window)]
        out[place] = cells.max() if cells.size else 0
    return out


def interpolated(x: np.ndarray, at: list[float]) -> float:
    """Multilinear; up to a cell outside the edge's value, 0 beyond."""
    total = 0.0
    if any(value < -1 or value > size for value, size in zip(at, x.shape, strict=True)):
        return total
    clipped = [min(max(value, 0.0), size - 1.0) for value, size in zip(at, x.shape, strict=True)]
    for corner in np.ndindex(*(2,) * x.ndim):
        weight, cell = 1.0, []
        for axis, upper in enumerate(corner):
            low = math.floor(clipped[axis])
            weight *= clipped[axis] - low if upper else 1 - (clipped[axis] - low)
            cell.append(min(low + upper, x.shape[axis] - 1))
        total += weight * float(x[tuple(cell)])
    return total


def roi_align(x: np.ndarray, box: np.ndarray, scale: float, bins: tuple[int, ...], ratio: int) -> np.ndarray:
    """He et al. 2017 with the half-pixel shift: the mean of a grid of samples in each bin."""
    axes = x.ndim
    out = np.zeros(bins)
    for place in np.ndindex(*bins):
        samples = []
        for axis, number in enumerate(place):
            begin, end = (box[corner + axes - 1 - axis] * scale - 0.5 for corner in (0, axes))
            step = (end - begin) / bins[axis]
            count = ratio or math.ceil(step)
            samples.append([begin + number * step + (sample + 0.5) * step / count for sample in range(count)])
        grid = [
            interpolated(x, [samples[axis][number] for axis, number in enumerate(sample)])
            for sample in np.ndindex(*map(len, samples))
        ]
        out[place] = sum(grid) / max(len(grid), 1)
    return out


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_boxes_are_roi_pooling(axes: int, rng: np.random.Generator) -> None:
    """Bitwise; an empty bin has no cells."""
    for number in range(60):
        plane, given, scale, bins = draw(rng, axes, bool(number % 2))
        x = rng.normal(size=plane)
        regions = boxes(plane, given, bins, spatial_scale=scale)
        got = pooled(regions, x, "maximum", int(rng.integers(1, 100)))
        assert ((got == -np.inf).reshape(-1) == (regions.counts() == 0)).all()
        expected = np.stack([roi_pool(x, box, scale, bins) for box in given])
        np.testing.assert_array_equal(np.where(got == -np.inf, 0, got), expected)
        assert_keeps_promises(regions, int(rng.integers(1, 100)))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_aligned_boxes_are_roi_align(axes: int, rng: np.random.Generator) -> None:
    """Absolute error ≤ 1e-12 on values around 1."""
    for number in range(25):
        plane, given, scale, bins = draw(rng, axes, bool(number % 2))
        x = rng.normal(size=plane)
        ratio = int(rng.integers(0, 3))
        regions = aligned(plane, given, bins, spatial_scale=scale, sampling_ratio=ratio)
        got = pooled(regions, x, "average", int(rng.integers(1, 200)))
        expected = np.stack([roi_align(x, box, scale, bins, ratio) for box in given])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        assert_keeps_promises(regions, int(rng.integers(1, 200)), exact=False)


def test_without_bins_a_box_is_one_region() -> None:
    x = np.arange(20.0).reshape(4, 5)
    given = [[1, 0, 3, 2], [0, 0, 4, 3]]
    regions = boxes((4, 5), given)
    assert regions.shape == (2,)
    assert pooled(regions, x, "average").tolist() == [x[0:3, 1:4].mean(), x.mean()]
    assert aligned((4, 5), given).shape == (2,)
    assert pooled(aligned((4, 5), [[0, 0, 5, 4]]), x, "average") == pytest.approx(x.mean(), rel=1e-12)


def test_many_aligned_samples_of_a_small_plane_come_in_small_pieces() -> None:
    regions = aligned((1,), [[0, 1]] * 1000, 4, sampling_ratio=64)
    assert regions.cells == 4000
    assert max(block.rows.size for block in regions.blocks(1024) if not isinstance(block.rows, slice)) <= 8


@pytest.mark.parametrize("system", [boxes, aligned])
@pytest.mark.parametrize(
    ("given", "more", "says"),
    [
        ([[0, 0, 3, 3], [0, 0, float("nan"), 3]], {}, "box 1 (0, 0, nan, 3): expected finite numbers"),
        ([[0, 0, float("inf"), 3]], {}, "box 0 (0, 0, inf, 3): expected finite numbers"),
        ([[0, 0, 3, 3], [2, 0, 1, 3]], {}, "box 1 (2, 0, 1, 3): expected an end not before its beginning"),
        (
            [[0, 0, 3, 3], [0, 0, 6.5, 3]],
            {},
            "box 1 (0, 0, 6.5, 3): with spatial_scale 1 it lies outside the plane of 4×5",
        ),
        ([[0, -2, 3, 3]], {}, "lies outside the plane of 4×5 cells"),
        ([[0, 0, 1e308, 3]], {"spatial_scale": 100.0}, "lies outside the plane of 4×5 cells"),
        ([[0, 0, 3]], {}, "boxes: expected at least one box of 4 numbers, got the shape [1, 3]"),
        ([], {}, "boxes: expected at least one box of 4 numbers, got the shape [0]"),
        ([[0, 0, 3, 3], [1]], {}, "boxes: expected 4 numbers for each box"),
        ([[0, 0, 3, 3]], {"spatial_scale": 0.0}, "spatial_scale: expected finite and above 0, got 0"),
        ([[0, 0, 3, 3]], {"output_size": 0}, "output_size: expected 1 to 2147483647, got 0"),
        ([[0, 0, 3, 3]] * 2, {"output_size": 9, "max_regions": 100}, "at most 100 regions, these parameters make 162"),
    ],
)
def test_bad_boxes_are_refused_with_their_number(
    system: object, given: object, more: dict[str, object], says: str
) -> None:
    with pytest.raises(RegionError) as refusal:
        system((4, 5), given, **more)  # type: ignore[operator]
    assert says in str(refusal.value)


def test_too_many_samples_are_refused() -> None:
    with pytest.raises(RegionError, match="sampling_ratio: expected 0 to 64, got 1000000000"):
        aligned((4, 5), [[0, 0, 3, 3]], sampling_ratio=10**9)

"""The arithmetic of tiles by itself: every pixel owned once, with all that it sees, within the limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.anysize.plan import TrunkGeometry
from service.runtime.grid import Grid, TooLarge, cut

RESNET18 = TrunkGeometry((32, 32), (32, 32), (435, 435), (217, 217, 217, 217), 1, 1)


@st.composite
def geometries(draw: st.DrawFn) -> TrunkGeometry:
    alignment = draw(st.tuples(st.integers(1, 64), st.integers(1, 64)))
    halo = draw(st.tuples(*[st.integers(0, 300)] * 4))
    return TrunkGeometry(alignment, alignment, (1 + halo[0] + halo[2], 1 + halo[1] + halo[3]), halo, 1, 1)


def grid_of(
    height: int, width: int, geometry: TrunkGeometry, *, max_canvas: int, max_strip: int, columns: bool
) -> Grid | None:
    try:
        return cut(height, width, geometry, max_canvas=max_canvas, max_strip=max_strip, stored_as_columns=columns)
    except TooLarge:
        return None


@given(
    sizes=st.tuples(st.integers(1, 70_000), st.integers(1, 70_000)),
    geometry=geometries(),
    max_canvas=st.integers(2**10, 2**23),
    max_strip=st.integers(2**10, 2**26),
    columns=st.booleans(),
)
def test_every_cell_is_owned_once_and_sees_what_it_must(
    sizes: tuple[int, int], geometry: TrunkGeometry, max_canvas: int, max_strip: int, columns: bool
) -> None:
    grid = grid_of(*sizes, geometry, max_canvas=max_canvas, max_strip=max_strip, columns=columns)
    if grid is None:
        return
    top, left, bottom, right = geometry.halo
    axes = ((grid.rows, top, bottom), (grid.columns, left, right))
    for (axis, before, after), size, alignment in zip(axes, sizes, geometry.alignment, strict=True):
        spans = axis.spans()
        assert spans[0].own_start == 0
        assert spans[-1].own_stop == size
        for one, next_one in itertools.pairwise(spans):
            assert one.own_stop == next_one.own_start
            assert one.start < next_one.start <= one.stop  # strips go on without a gap
            assert next_one.own_start % alignment == 0
        for span in spans:
            assert span.start % alignment == 0
            assert 0 <= span.start <= span.own_start < span.own_stop <= span.stop <= size
            assert span.stop - span.start <= axis.length
            assert span.start == 0 or span.start <= span.own_start - before
            assert span.stop == size or span.stop >= span.own_stop + after
    assert grid.rows.length * grid.columns.length <= max_canvas
    height, width = sizes
    assert (grid.columns.length * height if columns else grid.rows.length * width) <= max_strip


@given(
    sizes=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    geometry=geometries(),
    max_canvas=st.integers(2**10, 2**18),
)
def test_it_is_refused_only_if_the_smallest_tile_passes_the_limit(
    sizes: tuple[int, int], geometry: TrunkGeometry, max_canvas: int
) -> None:
    top, left, bottom, right = geometry.halo
    smallest = 1
    for size, before, after, alignment in zip(sizes, (top, left), (bottom, right), geometry.alignment, strict=True):
        smallest *= min(size, -(-before // alignment) * alignment + alignment + after)
    assert (grid_of(*sizes, geometry, max_canvas=max_canvas, max_strip=2**40, columns=False) is None) == (
        smallest > max_canvas
    )


def test_an_image_of_one_canvas_is_one_tile() -> None:
    grid = cut(2048, 2048, RESNET18, max_canvas=2**22, max_strip=2**26, stored_as_columns=False)
    assert (grid.tiles, grid.canvas_pixels) == (1, 2**22)


@pytest.mark.parametrize(
    ("height", "width", "max_canvas", "most"),
    [
        (30_000, 40_000, 3 * 2**20, 1.90),
        (9_000, 12_000, 2**22, 1.54),
        (4_500, 6_000, 3 * 2**20, 1.60),
        (4_500, 6_000, 2**24, 1.10),
    ],
)
def test_halos_cost_little(height: int, width: int, max_canvas: int, most: float) -> None:
    """Of a ResNet-18, whose halo is 441 pixels: the work against the image's own pixels."""
    grid = cut(height, width, RESNET18, max_canvas=max_canvas, max_strip=50_000_000, stored_as_columns=False)
    assert grid.canvas_pixels / (height * width) <= most


def test_work_is_within_some_hundredths_of_the_least(rng: np.random.Generator) -> None:
    """Against every pair of steps there is."""
    height, width = (int(side) for side in rng.integers(1000, 4000, 2))
    max_canvas = int(rng.integers(500_000, 2_000_000))
    found = cut(height, width, RESNET18, max_canvas=max_canvas, max_strip=2**40, stored_as_columns=False)
    halo = 224 + 217
    least = np.inf
    for step in range(32, height + 32, 32):
        n = max(1, -(-(height - halo) // step))
        tall = height if n == 1 else step + halo
        for wide_step in range(32, width + 32, 32):
            m = max(1, -(-(width - halo) // wide_step))
            wide = width if m == 1 else wide_step + halo
            if tall * wide <= max_canvas:
                least = min(least, n * m * tall * wide)
    assert found.canvas_pixels <= 1.05 * least


def test_refusal_says_what_is_needed() -> None:
    with pytest.raises(TooLarge, match=r"473×473 pixels or more .* at most 200000 pixels are run at once"):
        cut(9000, 9000, RESNET18, max_canvas=200_000, max_strip=2**40, stored_as_columns=False)

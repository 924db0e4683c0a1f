"""Strips of rows and batches of tiles: each is its part of the upright image, and every pixel is owned once."""

from __future__ import annotations

import numpy as np
import pytest

from service.runtime.grid import cut
from service.runtime.strips import strips
from service.runtime.tile_batches import tile_batches
from tests.pictures import noise
from tests.service.runtime.box_trunk import GEOMETRY
from tests.service.runtime.tiled import rows_of


def test_strips_are_the_rows_of_their_bounds(rng: np.random.Generator) -> None:
    for _ in range(50):
        image = noise(int(rng.integers(1, 60)), int(rng.integers(1, 9)), 3, rng)
        height, step = len(image), int(rng.integers(1, 20))
        length = step + int(rng.integers(0, 30))
        bounds = [(start, min(height, start + length)) for start in range(0, max(1, height - length + step), step)]
        found = [strip.copy() for strip in strips(rows_of(image, rng), bounds)]
        assert bounds[-1][1] == height
        for (start, stop), strip in zip(bounds, found, strict=True):
            np.testing.assert_array_equal(strip, image[start:stop])


def test_strips_say_that_rows_are_missing(rng: np.random.Generator) -> None:
    image = noise(10, 4, 3, rng)
    with pytest.raises(ValueError, match="expected 12 rows, got 10"):
        list(strips(rows_of(image, rng), [(0, 12)]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_tile_is_its_part_of_the_upright_image(orientation: int, rng: np.random.Generator) -> None:
    image = noise(int(rng.integers(1, 300)), int(rng.integers(1, 300)), int(rng.choice([1, 3])), rng)
    height, width, _ = image.shape
    turned = orientation >= 5
    grid = cut(height, width, GEOMETRY, max_canvas=4096, max_strip=2**20, stored_as_columns=turned)
    seen: dict[tuple[int, int], np.ndarray] = {}
    owned: dict[tuple[int, int], list[int]] = {}
    for batch in tile_batches(rows_of(image, rng, orientation), grid, 10_000):
        assert batch.pixels.shape[1:3] == (grid.rows.length, grid.columns.length)
        for canvas, extent, own in list(zip(batch.pixels, batch.extents, batch.owned, strict=True))[: batch.tiles]:
            y, x, *size = map(int, extent)
            assert size == [height, width]
            assert (y, x) not in seen
            part = image[y : y + grid.rows.length, x : x + grid.columns.length]
            np.testing.assert_array_equal(canvas[: part.shape[0], : part.shape[1]], part)
            seen[y, x], owned[y, x] = part, own.tolist()
    assert len(seen) == grid.tiles
    assert sum((bottom - top) * (right - left) for top, left, bottom, right in owned.values()) == height * width

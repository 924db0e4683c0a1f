"""The transposed gather, against np.add.at."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.operators.regions.adaptive import adaptive
from graphs.operators.regions.binomial import binomial
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.boxes import boxes
from graphs.operators.regions.segments import segments
from graphs.operators.regions.transpose import readers, transpose
from graphs.operators.regions.windows import window_geometry, windows
from tests.graphs.operators.regions.pooled import tables

PLANE = (7, 6)

SYSTEMS: dict[str, Regions] = {
    "windows": windows(window_geometry(PLANE, 3, 2, 1)),
    "dilated windows": windows(window_geometry(PLANE, 2, 1, 1, dilation=3)),
    "adaptive grid": adaptive(PLANE, (3, 9)),
    "blur": binomial(PLANE, 4),
    "boxes": boxes(PLANE, [[0, 0, 2, 2], [1, 1, 4, 5], [1, 1, 1, 1]], 2),
    "segments": segments(PLANE, np.arange(42) % 5 - 1),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_gathering_by_the_transpose_is_scattering_by_the_table(name: str, rng: np.random.Generator) -> None:
    """To 1e-12, for blocks of every size; the pieces of `readers` together do the same."""
    for block in SYSTEMS[name].blocks(int(rng.integers(10, 200))):
        index, weight, _ = tables(block, PLANE)
        values = rng.normal(size=index.shape)
        expected = np.zeros(42)
        np.add.at(expected, index[weight != 0], values[weight != 0])
        extended = np.append(values, 0.0)
        table = transpose(index, block.weight, 42)
        assert table.shape[0] == 42
        assert table.dtype == np.int32
        np.testing.assert_allclose(extended[table].sum(axis=1), expected, rtol=0, atol=1e-12)
        assert (np.diff(table.astype(np.int64), axis=1)[table[:, 1:] != index.size] > 0).all()
        got = np.zeros(42)
        for cells, slots in readers(index, block.weight, 42, 20):
            assert slots.size <= max(20, slots.shape[1])
            got[cells] += extended[slots].sum(axis=1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_one_cell_that_all_read_is_left_to_the_pieces() -> None:
    """A rectangular inverse of 10⁵ cells and 10⁵ readers would have 10¹⁰ entries."""
    index = np.zeros((10**5, 1), np.int32)
    with pytest.raises(RegionError, match="one of 100000 is read 100000 times"):
        transpose(index, None, 10**5)
    ((cells, slots),) = readers(index, None, 10**5, 1000)
    assert cells == slice(0, 1)
    assert slots.shape == (1, 10**5)


def test_a_table_without_cells_has_an_empty_transpose() -> None:
    index, weight = np.zeros((2, 1), np.int32), np.zeros((2, 1))
    assert (transpose(index, weight, 3) == 2).all()
    assert list(readers(index, weight, 3, 10)) == []

"""Segments, against a loop over the labels."""

from __future__ import annotations

import numpy as np
import pytest

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.segments import segments
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


def test_segments_are_the_cells_of_each_label(rng: np.random.Generator) -> None:
    """Also labels that no cell has, and cells that are left out."""
    for _ in range(60):
        plane = tuple(int(value) for value in rng.integers(1, 9, rng.integers(1, 4)))
        count = int(rng.integers(1, 9))
        labels = rng.integers(-1, count, plane)
        x = rng.normal(size=plane)
        regions = segments(plane, labels if rng.integers(2) else labels.reshape(-1), count)
        expected = [x[labels == label].sum() for label in range(count)]
        np.testing.assert_allclose(pooled(regions, x, "sum", int(rng.integers(1, 60))), expected, rtol=0, atol=1e-12)
        assert regions.counts().tolist() == [int((labels == label).sum()) for label in range(count)]
        assert_keeps_promises(regions, int(rng.integers(1, 60)))


def test_the_largest_label_counts_the_segments() -> None:
    assert segments((2, 2), [[0, 3], [-1, 0]]).shape == (4,)
    assert segments((2, 2), np.array([[0, 3], [1, 0]], np.uint8)).shape == (4,)


def test_tables_are_at_most_half_empty(rng: np.random.Generator) -> None:
    """One large segment among a thousand small ones does not make their rows long."""
    labels = np.concatenate([np.zeros(5000, np.int64), rng.permutation(np.repeat(np.arange(1, 1001), 3))])
    regions = segments((8000,), labels)
    assert regions.cells <= 2 * 8000


@pytest.mark.parametrize(
    ("labels", "count", "says"),
    [
        ([[0, 1]], None, "labels: expected the plane's shape [2, 2], got [1, 2]"),
        ([[0.0, 1.0], [1.0, 1.0]], None, "labels: expected integers, got float64"),
        ([[0, -2], [1, 1]], None, "labels: expected 0 and above, or -1 for cells to leave out, got -2"),
        ([[-1, -1], [-1, -1]], None, "labels: expected at least one cell with a label of 0 or above, all are left out"),
        ([[0, 3], [1, 1]], 3, "labels: expected 0 to 2 for 3 regions, got 3"),
        ([[0, 10**12], [1, 1]], None, "labels: too many, 1000000000001 regions; expected at most 100"),
        ([[0, 1], [1, 1]], 101, "labels: too many, 101 regions; expected at most 100"),
        ([[0, 1], [1, 1]], 0, "count: expected 1 to 2147483647, got 0"),
    ],
)
def test_bad_labels_are_refused(labels: object, count: int | None, says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        segments((2, 2), labels, count, max_regions=100)  # type: ignore[arg-type]
    assert says in str(refusal.value)

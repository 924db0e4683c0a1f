"""Regions by clusters of the strongest cells: found again where they were put, and pooled as segments."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from graphs.operators.clusters import Clusters, cluster_labels
from service.errors import InvalidParameter, PayloadTooLarge
from service.runtime.pooling.pooler import Action, Pooler
from service.settings import Settings
from tests.claims import relative_error


@pytest.fixture(scope="module")
def pooler() -> Pooler:
    return Pooler(Settings(), "cpu")


def run(pooler: Pooler, action: Action, x: np.ndarray, parameters: dict[str, Any], **arrays: np.ndarray) -> np.ndarray:
    course = pooler.prepare(action, "clusters", parameters, arrays, x.shape, x.dtype)
    return course.run(x, time.monotonic() + 60).tensor


def blobs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(C,H,W) with two far squares of strong cells, and the mask of the second."""
    x = rng.uniform(0, 0.1, (3, 12, 30))
    x[:, 1:5, 2:6] += 5
    x[:, 7:11, 24:28] += 5
    second = np.zeros((12, 30), bool)
    second[7:11, 24:28] = True
    return x, second


def test_strong_places_are_found(rng: np.random.Generator) -> None:
    x, second = blobs(rng)
    for seed in range(5):
        labels = cluster_labels(x.reshape(1, 3, -1), (12, 30), Clusters(clusters=2, fraction=32 / 360, seed=seed))[0]
        labels = labels.reshape(12, 30)
        assert len(set(labels[second])) == 1
        assert set(labels[1:5, 2:6].ravel()) == {1 - labels[second][0]}
        rows, columns = np.mgrid[:12, :30]  # and the plane is cut half way between the squares' centres
        to_second = (rows - 8.5) ** 2 + (columns - 25.5) ** 2
        to_first = (rows - 2.5) ** 2 + (columns - 3.5) ** 2
        apart = to_first != to_second
        assert np.array_equal((labels == labels[second][0])[apart], (to_second < to_first)[apart])


def test_labels_are_those_of_the_nearest_centre_and_stable(rng: np.random.Generator) -> None:
    parameters = Clusters(clusters=5, fraction=1.0, seed=int(rng.integers(100)))
    x = rng.standard_normal((2, 3, 100))
    labels = cluster_labels(x, (10, 10), parameters)
    assert np.array_equal(labels, cluster_labels(x, (10, 10), parameters))
    places = np.stack(np.mgrid[:10, :10], -1).reshape(100, 2)
    for row in labels:  # every cell is strong, so centres are the means of their cells where Lloyd has come to rest
        centres = np.stack([places[row == k].mean(0) for k in range(5)])
        distances = ((places[:, None] - centres) ** 2).sum(2)
        assert (distances[np.arange(100), row] <= distances.min(1) + 4).all()


@pytest.mark.parametrize("statistic", ["max", "avg"])
def test_pooled_by_clusters_is_pooled_by_their_labels(statistic: str, pooler: Pooler, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 6, 7))
    y = run(pooler, "pool", x, {"clusters": 4, "statistic": statistic})
    labels = cluster_labels(x.reshape(2, 3, 42), (6, 7), Clusters(clusters=4))
    assert y.shape == (2, 3, 4)
    expected = np.zeros((2, 3, 4))
    slope = np.zeros((2, 3, 42))
    seed = rng.standard_normal((2, 3, 4))
    for n, c, k in np.ndindex(2, 3, 4):
        cells = np.flatnonzero(labels[n] == k)
        values = x[n, c].ravel()[cells]
        expected[n, c, k] = values.max() if statistic == "max" else values.mean()
        if statistic == "max":
            slope[n, c, cells[values.argmax()]] = seed[n, c, k]
        else:
            slope[n, c, cells] = seed[n, c, k] / len(cells)
    assert relative_error(y, expected) < 1e-12
    back = run(pooler, "gradient", x, {"clusters": 4, "statistic": statistic}, grad_output=seed)
    assert relative_error(back, slope.reshape(x.shape)) < 1e-12


def test_one_cell_for_many_clusters(pooler: Pooler) -> None:
    y = run(pooler, "pool", np.array([[[[2.5]]]]), {"clusters": 3})
    assert np.array_equal(y, [[[2.5, 0, 0]]])  # the others have no cells


@pytest.mark.parametrize(
    ("shape", "expected"), [((0, 3, 4, 4), (0, 3, 4)), ((2, 0, 4, 4), (2, 0, 4)), ((0, 1, 1, 1), (0, 1, 4))]
)
def test_nothing_in_clusters_is_nothing(pooler: Pooler, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    course = pooler.prepare("pool", "clusters", {"clusters": 4}, {}, shape, np.dtype(np.float32))
    assert course.run(np.zeros(shape, np.float32), time.monotonic() + 60).tensor.shape == expected


def test_refusals(pooler: Pooler, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 6, 7))
    with pytest.raises(InvalidParameter, match="segments: only with labels"):
        run(pooler, "pool", x, {"segments": 3})
    with pytest.raises(InvalidParameter):
        run(pooler, "pool", x, {"kernel": 3})
    with pytest.raises(PayloadTooLarge, match="distances to clusters"):
        Pooler(Settings(max_pool_cells=1000), "cpu").prepare("pool", "clusters", {}, {}, x.shape, x.dtype)

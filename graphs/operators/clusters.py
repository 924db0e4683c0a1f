"""Regions that follow the image: the places of its strongest cells, clustered."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from graphs.operators.cells import Cells
from graphs.operators.expression import Tensor
from graphs.operators.operator import Operator, Parameters, Reference

_ROUNDS = 20
"""Of Lloyd's algorithm at most; it stops as soon as no cell changes its cluster."""


class Clusters(Parameters):
    """Parameters of clustered regions."""

    clusters: int = Field(4, ge=1, le=1024, description="K: regions of each sample.")
    fraction: float = Field(0.25, gt=0, le=1, description="Of the cells, the strongest, whose places are clustered.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the choice of the first centres.")
    statistic: Literal["max", "avg"] = Field("max", description="What is done with the cells of a region.")


def write_clusters(cells: Cells, parameters: Clusters) -> Tensor:
    """The maximum or the average; the regions are where the clusters come in."""
    return cells.max(cells.values) if parameters.statistic == "max" else cells.mean(cells.values)


def cluster_labels(x: np.ndarray, plane: tuple[int, ...], parameters: Clusters) -> NDArray[np.int64]:
    """Cluster the places of the strongest cells of each sample (k-means++, then Lloyd), and give every cell to the nearest centre.

    The strength of a cell is its norm over the channels; of equals the first are taken. Of several equally near centres the first
    is. A centre that no strong cell is nearest to stays where it was.

    Args:
        x: (N,C,L); NaN and infinity count as no strength.
        plane: its product is L.
        parameters: how many clusters, of which cells.

    Returns:
        (N,L), 0 … clusters − 1.
    """
    places = np.stack(np.unravel_index(np.arange(math.prod(plane)), plane), axis=1).astype(np.float64)
    most = max(1, math.ceil(parameters.fraction * len(places) - 1e-6))
    labels = np.zeros((len(x), len(places)), np.int64)
    for sample, row in zip(x, labels, strict=True):
        values = np.nan_to_num(sample.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        values /= np.abs(values).max(initial=0.0) or 1.0
        strength = np.square(values).sum(axis=0)
        strong = places[np.sort(np.argsort(-strength, kind="stable")[:most])]
        row[:] = _nearest(places, _centres(strong, parameters.clusters, np.random.default_rng(parameters.seed)))
    return labels


def cluster_work(cells: int, parameters: Clusters) -> int:
    """Distances that clustering one sample takes, at most."""
    return cells * parameters.clusters * (1 + math.ceil(parameters.fraction * (1 + _ROUNDS)))


def _centres(points: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    centres: NDArray[np.float64] = points[rng.integers(len(points))][None]
    distance = np.square(points - centres[0]).sum(axis=1)
    for _ in range(count - 1):
        total = distance.sum()
        chosen = rng.choice(len(points), p=distance / total) if total > 0 else 0
        centres = np.concatenate([centres, points[chosen][None]])
        distance = np.minimum(distance, np.square(points - points[chosen]).sum(axis=1))
    nearest = _nearest(points, centres)
    for _ in range(_ROUNDS):
        sizes = np.bincount(nearest, minlength=count)[:, None]
        sums = np.stack([np.bincount(nearest, axis, minlength=count) for axis in points.T], axis=1)
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres)
        before, nearest = nearest, _nearest(points, centres)
        if np.array_equal(before, nearest):
            break
    return centres


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    nearest = np.zeros(len(points), np.int64)
    least = np.full(len(points), np.inf)
    for number, centre in enumerate(centres):
        distance = np.square(points - centre).sum(axis=1)
        closer = distance < least
        nearest[closer], least[closer] = number, distance[closer]
    return nearest


def _labels(x: np.ndarray, plane: tuple[int, ...], parameters: Any) -> NDArray[np.int64]:
    return cluster_labels(x, plane, parameters)


OPERATORS = (
    Operator(
        name="clusters",
        family="learned",
        summary="Each image has regions of its own: its strongest cells are clustered by place, every cell joins the nearest.",
        formula=(
            r"\max_{i\in R_k}x_i,\quad R_k=\{i:k=\arg\min_j\lVert p_i-c_j\rVert\},"
            r"\ c=k\text{-means}(p_i\text{ of the strongest }i)"
        ),
        keeps="one answer for each group of interesting places, wherever they are in this image",
        loses="the same number of a cluster in two images means nothing; the gradient takes the regions as given",
        write=write_clusters,
        parameters=Clusters,
        references=(
            Reference(
                "Boureau, Le Roux, Bach, Ponce, LeCun",
                2011,
                "Ask the locals: multi-way local pooling for image recognition",
            ),
            Reference("Coates, Ng", 2011, "Selecting receptive fields in deep networks"),
            Reference("Arthur, Vassilvitskii", 2007, "k-means++: the advantages of careful seeding"),
        ),
        labels=_labels,
        labelling=cluster_work,
    ),
)

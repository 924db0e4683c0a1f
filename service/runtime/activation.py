"""Class activation maps: what each cell of the features says for a class, and that map on the picture's own pixels.

A cell's evidence is what the head makes of that cell alone, as a map of 1×1: the class's score if the whole picture looked like it.
No gradient is taken. Where the head averages and then is affine (scores = W·mean(f) + b), this is W_c·f + b exactly, the map of
Zhou et al. 2016 (arXiv:1512.04150), and its mean is the picture's own score. Of a maximum, GeM or log-sum-exp it is the evidence of
the cell by itself, by which those poolings choose. Where the head pools by attention, Σ a_i·f_i with weights a_i of sum 1, a lone
cell would have weight 1 whatever the head thinks of it; so each cell's evidence over that of no features at all, m_i − m_0, counts
with its own weight: m_0 + n·a_i·(m_i − m_0) of n cells. With equal weights that is the map of averages; its mean is the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphs.anysize.cut import WEIGHTS
from graphs.anysize.domains import Cells
from service.runtime.features import Features, Grid

_ROWS_AT_ONCE = 2**18
"""Pixels that are interpolated at once."""


@dataclass(frozen=True)
class ClassMap:
    """A class's map.

    Attributes:
        index: of the class.
        scores: of the whole picture, (K,).
        cells: evidence, (h,w), float32, in units of the scores.
    """

    index: int
    scores: np.ndarray
    cells: np.ndarray


def class_map(
    features: Features, maps: np.ndarray, output: str, choose: Callable[[np.ndarray], int], deadline: float
) -> ClassMap:
    """Compute one picture's class activation map. Blocks.

    Args:
        features: of the model.
        maps: (C,h,w), float32.
        output: name of the scores among the head's outputs.
        choose: the class's index by the scores (K,).
        deadline: on the clock of `time.monotonic`.

    Raises:
        DeadlineExceeded: 504.
    """
    channels, height, width = maps.shape
    whole = features.head(maps[None], deadline)
    scores = whole[output][0]
    index = choose(scores)
    alone = maps.reshape(channels, -1).T[:, :, None, None]  # (h·w,C,1,1)
    evidence = features.head(alone, deadline)[output][:, index].astype(np.float64)
    if features.weighted:
        nothing = features.head(np.zeros((1, channels, 1, 1), np.float32), deadline)[output][0, index]
        shares = whole[WEIGHTS][0].astype(np.float64) * evidence.size
        evidence = nothing + shares * (evidence - nothing)
    return ClassMap(index, scores, evidence.astype(np.float32).reshape(height, width))


def centre(side: Cells) -> float:
    """Where the middle of what cell 0 sees lies, in pixels: the middle of pixel 0 is 0."""
    return (side.first + side.last) / 2


def spread(cells: np.ndarray, grid: Grid, height: int, width: int) -> np.ndarray:
    """Lay cells on a picture: linear on both sides between the middles of what the cells see, constant beyond the outermost.

    With stride s and cells that see their own s pixels that is bilinear interpolation with half-pixel centres; where convolutions
    are padded, the middles lie elsewhere, and so does the map.

    Args:
        cells: (h,w), float32.
        grid: where the cells lie.
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        (height,width), float32.
    """
    left, right, share = _between(grid.columns, cells.shape[1], width)
    wide = cells[:, left] * (1 - share) + cells[:, right] * share  # (h,width)
    above, below, part = _between(grid.rows, cells.shape[0], height)
    out = np.empty((height, width), np.float32)
    step = max(1, _ROWS_AT_ONCE // width)
    for top in range(0, height, step):
        rows = slice(top, top + step)
        fraction = part[rows, None]
        out[rows] = wide[above[rows]] * (1 - fraction) + wide[below[rows]] * fraction
    return out


def _between(side: Cells, count: int, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel the cells before and behind it, and how far it is from the one to the other."""
    place = np.clip((np.arange(pixels) - centre(side)) / side.level.stride, 0, count - 1)
    before = np.minimum(place.astype(np.intp), max(count - 2, 0))
    return before, np.minimum(before + 1, count - 1), place - before

"""A trunk in NumPy that sees further than its tile: box sums with a stride, then a mean over all cells. Exact in integers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from graphs.anysize.plan import TrunkGeometry
from graphs.anysize.states import State
from service.runtime.tile_graphs import TileGraphs

STRIDE, REACH = 4, 10
"""Cell j is the sum of pixels j·4 − 10 … j·4 + 10 that lie in the image, both ways."""

GEOMETRY = TrunkGeometry((STRIDE, STRIDE), (STRIDE, STRIDE), (2 * REACH + 1,) * 2, (REACH,) * 4, 1, 1)
STATES = (State("sum", ("total",)), State("sum", ("cells",)), State("max", ("highest",)))


def cells(image: np.ndarray) -> np.ndarray:
    """All cells of an image (H,W,C), int64 (h,w,C)."""
    height, width, _ = image.shape
    sums = np.pad(image.astype(np.int64), ((1, 0), (1, 0), (0, 0))).cumsum(0).cumsum(1)  # (H+1,W+1,C)

    def edges(size: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.arange(0, size, STRIDE)
        return np.clip(at - REACH, 0, size), np.clip(at + REACH + 1, 0, size)

    (top, bottom), (left, right) = edges(height), edges(width)
    grid = np.ix_
    rows_columns = (sums[grid(bottom, right)], sums[grid(top, right)], sums[grid(bottom, left)], sums[grid(top, left)])
    return np.asarray(rows_columns[0] - rows_columns[1] - rows_columns[2] + rows_columns[3])


def answer(image: np.ndarray) -> np.ndarray:
    """What the whole image gives: means and maxima of its cells, float64 (2C,)."""
    found = cells(image).reshape(-1, image.shape[2])
    return np.concatenate([found.mean(0), found.max(0)]).astype(np.float64)


class BoxTrunk:
    """Runs tiles; on request only when the test lets it, and it may break.

    Attributes:
        batches: (y0, x0, image height, image width) of every tile that ran, and the shape of its batch.
        entered: released when a run begins. gate: if set, acquired before it goes on.
        broken: raised instead of running.
        released: how often memory was to be given back.
    """

    def __init__(self, *, gated: bool = False) -> None:
        self.batches: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0) if gated else None
        self.broken: Exception | None = None
        self.released = 0
        self.loads = 0

    def load(self) -> TileGraphs:
        self.loads += 1
        return TileGraphs(self.trunk, self.head, STATES, self.release)

    def release(self) -> None:
        self.released += 1

    def trunk(self, pixels: np.ndarray, extents: np.ndarray, owned: np.ndarray) -> Mapping[str, np.ndarray]:
        self.entered.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=20)
        if self.broken is not None:
            raise self.broken
        totals, counts, highest = [], [], []
        for canvas, (y0, x0, height, width), (top, left, bottom, right) in zip(pixels, extents, owned, strict=True):
            self.batches.append(((int(y0), int(x0), int(height), int(width)), pixels.shape))
            found = cells(canvas[: height - y0, : width - x0])  # what lies behind the image is not looked at
            y = y0 + STRIDE * np.arange(found.shape[0])
            x = x0 + STRIDE * np.arange(found.shape[1])
            mine = found[(top <= y) & (y < bottom)][:, (left <= x) & (x < right)].reshape(-1, found.shape[2])
            totals.append(mine.sum(0))
            counts.append(len(mine))
            highest.append(mine.max(0))
        return {
            "total": np.stack(totals).astype(np.float64),
            "cells": np.array(counts, np.float64)[:, None],
            "highest": np.stack(highest),
        }

    def head(self, states: Mapping[str, np.ndarray], extents: np.ndarray) -> Sequence[np.ndarray]:
        assert extents.shape == (1, 4)
        assert states["cells"][0, 0] == np.prod(-(-extents[0, 2:] // STRIDE))  # every cell once
        return [np.concatenate([states["total"] / states["cells"], states["highest"]], axis=1)]

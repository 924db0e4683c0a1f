"""Tensors as files, for tests of what is sent, and what pooling makes of one; made and read by NumPy itself."""

from __future__ import annotations

import io

import numpy as np

MATRIX = [[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]]
POOLED = [[5.0, 7.0], [8.0, 9.0]]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content)) as archive:
        return dict(archive)


def maximum(x: np.ndarray) -> np.ndarray:
    """2×2 windows of the last two axes, by reshaping."""
    *lead, height, width = x.shape
    return x.reshape(*lead, height // 2, 2, width // 2, 2).max((-3, -1))

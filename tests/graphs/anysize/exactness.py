"""Images on a shared canvas through the compiled graph, against each image alone through the graph as it came."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime

from graphs.anysize.analysis import analyse
from graphs.anysize.domains import Axes, Batch, Cells, Fixed
from graphs.anysize.fold import fold_constants
from graphs.anysize.ragged import make_ragged
from graphs.anysize.sizes import Level
from graphs.card import ModelCard

BOUND = 2e-6
"""Largest |a − b| / largest |b|, float32 on CPU."""

CARD = ModelCard.model_validate({"preprocessing": {"mean": [0.45, 0.4, 0.5], "std": [0.2, 0.25, 0.3]}})

FLOAT_AXES: Axes = (Batch(), Fixed(3), Cells(Level("height")), Cells(Level("width")))


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def preprocessed(pixels: np.ndarray) -> np.ndarray:
    """Pixels (N,H,W,3) as the network's input, in the front's own order of operations (float32)."""
    mean, std = (np.array(numbers, np.float64) for numbers in (CARD.preprocessing.mean, CARD.preprocessing.std))
    scale = (CARD.preprocessing.scale / std).astype(np.float32).reshape(-1, 1, 1)
    shift = (mean / std).astype(np.float32).reshape(-1, 1, 1)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32) * scale - shift)


def draw(rng: np.random.Generator, minimum: tuple[int, int], largest: int, count: int) -> list[tuple[int, int]]:
    """Draw sizes; the smallest one is among them, and one that is smallest in one side only."""
    low, high = minimum
    sizes = [minimum, (low, int(rng.integers(high, max(largest, high) + 1)))][:count]
    while len(sizes) < count:
        height = int(rng.integers(low, max(largest, low) + 1))
        sizes.append((height, int(rng.integers(high, max(largest, high) + 1))))
    return sizes


def canvas_of(rng: np.random.Generator, sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise on one canvas of noise, uint8 (N,H,W,3), some pixels larger than the largest; and extents (N,4)."""
    height = max(size[0] for size in sizes) + int(rng.integers(0, 40))
    width = max(size[1] for size in sizes) + int(rng.integers(0, 40))
    canvas = rng.integers(0, 256, (len(sizes), height, width, 3), np.uint8)
    for sample in canvas:  # images that differ from each other in more than noise
        sample[:] = (sample * rng.uniform(0.2, 1) + rng.integers(0, 50, 3)).clip(0, 255)
    return canvas, np.array([(0, 0, *size) for size in sizes], np.int64)


def alone(plain: onnxruntime.InferenceSession, canvas: np.ndarray, extents: np.ndarray) -> list[np.ndarray]:
    """Each output for each image by itself, stacked."""
    rows = []
    for sample, (_, _, height, width) in zip(canvas, extents, strict=True):
        rows.append(plain.run(None, {plain.get_inputs()[0].name: preprocessed(sample[None, :height, :width])}))
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def error(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest relative error over outputs and images."""
    errors = []
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        for a, b in zip(one.astype(np.float64), other.astype(np.float64), strict=True):
            assert np.isfinite(b).all()
            errors.append(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))
    return float(np.max(np.nan_to_num(errors, nan=np.inf)))


def ragged_floats(model: ir.Model, axes: Axes = FLOAT_AXES, coarse: int | None = None) -> ir.Model:
    """The ragged graph without the front: takes floats, so that its canvas can hold what pixels cannot."""
    copy = model.clone()
    fold_constants(copy)
    image = copy.graph.inputs[0]
    analysis = analyse(copy.graph, {image: axes})
    assert not analysis.obstacles, [str(obstacle) for obstacle in analysis.obstacles]
    make_ragged(copy, analysis, image, coarse)
    return copy


def poisoned(rng: np.random.Generator, canvas: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """Preprocessed floats (N,3,H,W) with NaN, infinities and huge numbers all around the images."""
    floats = preprocessed(canvas)
    for sample, (_, _, height, width) in zip(floats, extents, strict=True):
        around = np.ones(sample.shape, bool)
        around[:, :height, :width] = False
        poison = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30], np.float32)
        sample[around] = rng.choice(poison, int(around.sum()))
    return floats

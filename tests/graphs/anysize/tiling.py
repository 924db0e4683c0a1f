"""The loop over tiles in its simplest form: NumPy cuts, ONNX Runtime runs, states.Merger merges. What the service does is this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from graphs.anysize.plan import EXTENTS, OWNED, Plan, TiledPlan, TrunkGeometry
from graphs.anysize.states import Merger
from graphs.front import PIXELS


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Tile:
    """One tile of an image: what it owns, and the pixels it needs for that."""

    owned: tuple[int, int, int, int]
    origin: tuple[int, int]
    end: tuple[int, int]


def grid(height: int, width: int, tile: tuple[int, int], geometry: TrunkGeometry) -> Iterator[Tile]:
    """Tiles of an image, each of `tile` pixels (multiples of the alignment) and its halo, as far as the image has them."""
    top, left, bottom, right = geometry.halo
    for y in range(0, height, tile[0]):
        for x in range(0, width, tile[1]):
            owned = (y, x, y + tile[0], x + tile[1])
            yield Tile(
                owned,
                (max(0, y - top), max(0, x - left)),
                (min(height, y + tile[0] + bottom), min(width, x + tile[1] + right)),
            )


class Tiled:
    """Runs a plan tile by tile.

    Args:
        plan: with `tiled`.
    """

    def __init__(self, plan: Plan) -> None:
        assert isinstance(plan.tiled, TiledPlan), [str(obstacle) for obstacle in plan.tiled_obstacles]
        assert plan.geometry is not None
        self.plan, self.geometry = plan.tiled, plan.geometry
        self.trunk, self.head = session(plan.tiled.trunk), session(plan.tiled.head)

    def states(self, image: np.ndarray, tile: Tile, garbage: np.random.Generator) -> dict[str, np.ndarray]:
        """Run the trunk on one tile; where it reaches the image's end, the canvas goes on and holds garbage."""
        (height, width), (y, x), (bottom, right) = image.shape[:2], tile.origin, tile.end
        least = (self.geometry.min_height, self.geometry.min_width)
        rows = bottom - y if bottom < height else max(least[0], bottom - y + int(garbage.integers(0, 7)))
        columns = right - x if right < width else max(least[1], right - x + int(garbage.integers(0, 7)))
        canvas = garbage.integers(0, 256, (1, rows, columns, image.shape[2]), dtype=np.uint8)
        canvas[0, : bottom - y, : right - x] = image[y:bottom, x:right]
        extents = np.array([[y, x, height, width]], np.int64)
        feeds = {PIXELS: canvas, EXTENTS: extents, OWNED: np.array([tile.owned], np.int64)}
        outputs = self.trunk.run(None, feeds)
        return dict(zip([output.name for output in self.trunk.get_outputs()], outputs, strict=True))

    def __call__(
        self, images: Sequence[np.ndarray], tiles: Sequence[tuple[int, int]], rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Give the outputs for several images (H,W,C): tiles in random order, one head for all."""
        merged = []
        for image, tile in zip(images, tiles, strict=True):
            merger = Merger(self.plan.states)
            every = list(grid(*image.shape[:2], tile, self.geometry))
            for index in rng.permutation(len(every)):
                merger.add(self.states(image, every[index], rng))
            merged.append(merger.result())
        feeds = {name: np.concatenate([one[name] for one in merged]) for name in merged[0]}
        feeds[EXTENTS] = np.array([[0, 0, *image.shape[:2]] for image in images], np.int64)
        outputs: list[np.ndarray] = self.head.run(None, feeds)
        return outputs


Oracle = Callable[[np.ndarray], Sequence[np.ndarray]]
"""The outputs for one image (H,W,C), each with its batch of one."""


def errors(
    plan: Plan,
    rng: np.random.Generator,
    *,
    images: int = 3,
    most: int = 90,
    cuts: int = 100,
    oracle: Oracle | None = None,
) -> dict[str, float]:
    """Largest relative error of each output over some images, tiled, against the whole images through the plain graph.

    Args:
        plan: with `tiled`, of a network that takes RGB.
        rng: draws images, sizes, tiles, their order.
        images: how many.
        most: pixels a side beyond the smallest that the network takes.
        cuts: tiles along a side, at most.
        oracle: what to compare with instead.
    """
    tiled, whole = Tiled(plan), session(plan.plain)
    geometry = tiled.geometry
    low = (geometry.min_height, geometry.min_width)
    sizes = [
        (int(rng.integers(low[0], low[0] + most)), int(rng.integers(low[1], low[1] + most))) for _ in range(images)
    ]
    tiles = [
        tuple(tile_side(step, side, cuts, rng) for step, side in zip(geometry.alignment, size, strict=True))
        for size in sizes
    ]
    print(f"sizes {sizes}, tiles {tiles}")
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    names = [output.name for output in whole.get_outputs()]
    got = tiled(pictures, tiles, rng)
    worst = dict.fromkeys(names, 0.0)
    for index, picture in enumerate(pictures):
        expected = whole.run(None, {PIXELS: picture[None]}) if oracle is None else oracle(picture)
        for name, mine, theirs in zip(names, got, expected, strict=True):
            assert mine[index : index + 1].shape == theirs.shape
            assert oracle or mine.dtype == theirs.dtype
            np.testing.assert_array_equal(np.isnan(mine[index]), np.isnan(theirs[0]), err_msg=name)
            there = np.isfinite(theirs[0])
            np.testing.assert_array_equal(mine[index][~there], theirs[0][~there], err_msg=name)
            difference = np.abs(mine[index].astype(np.float64) - theirs[0])[there]
            error = difference.max(initial=0) / np.abs(theirs[0][there]).max(initial=1e-30)
            worst[name] = max(worst[name], float(error))
    return worst


def tile_side(step: int, side: int, cuts: int, rng: np.random.Generator) -> int:
    """Draw a side: a multiple of the alignment, from one step (or as many as are needed) to more than the image."""
    least = -(-side // (step * cuts))
    return step * int(rng.integers(least, max(least, side // step + 1) + 1))

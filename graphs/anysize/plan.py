"""What the compiler gives: the graphs that serve a model at any size, their geometry, and what could not be done and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from graphs.anysize.states import State

EXTENTS = "extents"
"""Graph input, int64 (N,4), pixels: y0, x0, height, width of each sample.

y0 and x0 are the canvas's origin in the image's own coordinates, >= 0 and a multiple of the alignment (0 but for tiles);
height and width are the whole image's."""

OWNED = "owned"
"""Graph input of a tiled trunk, int64 (N,4), image pixels, half open: top, left, bottom, right.

Cell j (in the image's coordinates) of a level with stride s belongs to the tile where top <= j·s < bottom, and so for
columns. Edges are multiples of the alignment; those of the last tiles are the height and width, or beyond."""


@dataclass(frozen=True)
class Obstacle:
    """Why a graph cannot be batched ragged, or tiled.

    Attributes:
        node: the node's name.
        op_type: its operator, such as `Resize`.
        reason: a sentence that says what is not known or not possible.
    """

    node: str
    op_type: str
    reason: str

    def __str__(self) -> str:
        """Give one sentence that names the node."""
        return f"{self.op_type} {self.node!r}: {self.reason}"


@dataclass(frozen=True)
class TrunkGeometry:
    """How positions of the features lie in the image; pairs are (vertical, horizontal), all in pixels.

    Attributes:
        stride: of the deepest level, pixels of the image a step.
        alignment: tiles begin at multiples of it (least common multiple of the strides of all levels).
        receptive_field: side of the region of the image that one position of the deepest features sees.
        halo: (top, left, bottom, right) that a tile needs beyond what it owns, for what it owns to be exact.
        min_height: smallest image whose every level has a cell.
        min_width: as min_height.
    """

    stride: tuple[int, int]
    alignment: tuple[int, int]
    receptive_field: tuple[int, int]
    halo: tuple[int, int, int, int]
    min_height: int
    min_width: int


@dataclass(frozen=True)
class TiledPlan:
    """A graph cut in two at its last reduction over space.

    `head(merge(trunk(tile) for tile in tiles))` is what the plain graph gives for the whole image.

    Attributes:
        trunk: PIXELS uint8 (N,H,W,C), EXTENTS, OWNED in, N tiles; out come the states' arrays, axis 0 is tiles.
        head: the merged arrays by the same names, axis 0 is images, and EXTENTS (y0 = x0 = 0) in; the outputs of the
            plain graph, by name and order.
        states: what the trunk gives, and how it merges (states.Merger).
    """

    trunk: ir.Model
    head: ir.Model
    states: tuple[State, ...]


@dataclass(frozen=True)
class Plan:
    """The graphs that serve one model.

    Attributes:
        plain: PIXELS uint8 (N,H,W,C) in, otherwise the file's graph; images of one size.
        ragged: PIXELS and EXTENTS in, outputs by name and order as `plain`: exact whatever lies around the images on
            their canvases. None where there are `ragged_obstacles`.
        geometry: None where the graph's spatial structure could not be followed.
        ragged_obstacles: empty where `ragged` is there.
        cut: makes `tiled`, or says what is in the way. It takes as long as all the rest, and most models never need it.
    """

    plain: ir.Model
    ragged: ir.Model | None
    geometry: TrunkGeometry | None
    ragged_obstacles: tuple[Obstacle, ...]
    cut: Callable[[], TiledPlan | tuple[Obstacle, ...]]

    @cached_property
    def _cut(self) -> TiledPlan | tuple[Obstacle, ...]:
        return self.cut()

    @property
    def tiled(self) -> TiledPlan | None:
        """The graph cut in two, made when it is first asked for; None where there are `tiled_obstacles`."""
        return self._cut if isinstance(self._cut, TiledPlan) else None

    @property
    def tiled_obstacles(self) -> tuple[Obstacle, ...]:
        """Why there is no `tiled`; empty where it is there."""
        return () if isinstance(self._cut, TiledPlan) else self._cut

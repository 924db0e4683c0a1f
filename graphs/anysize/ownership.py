"""Which cells of a canvas are a tile's own: inside the image, and within what the tile was told to own."""

from __future__ import annotations

import onnx_ir as ir

from graphs.anysize.domains import Axes
from graphs.anysize.masks import Masks
from graphs.anysize.sizes import Level
from graphs.anysize.writer import Writer


class Ownership(Masks):
    """Masks of the cells that a tile owns.

    A cell is at the pixel of the image that its index times the stride gives: it is the tile's where
    top <= pixel < bottom (and so for columns), and where top <= pixel if the bottom is the image's end or beyond.

    Args:
        writer: of the graph.
        image: the graph's input on which the tiles lie.
        axes: of the image.
        extents: int64 (N,4), as plan.EXTENTS.
        owned: int64 (N,4), as plan.OWNED.
    """

    def __init__(self, writer: Writer, image: ir.Value, axes: Axes, extents: ir.Value, owned: ir.Value) -> None:
        super().__init__(writer, image, extents, axes)
        self._owned = owned
        self._own: dict[Level, ir.Value] = {}

    def inside(self, level: Level) -> ir.Value:
        """Whether each cell of the canvas is the image's, in the level's window and the tile's own, bool (N, cells)."""
        if level not in self._own:
            writer, pixel = self.writer, self.pixel(level)
            side = 0 if level.side == "height" else 1
            first, end = (
                writer.along("Unsqueeze", writer.op("Gather", [self._owned, writer.integer(edge)], axis=1), [1])
                for edge in (side, side + 2)
            )
            # A level may have cells behind the image's last pixel, where a net pads more than it takes away.
            last = writer.not_after(writer.along("Unsqueeze", self.length(level.side), [1]), end)
            before_end = writer.op("Or", [writer.op("Less", [pixel, end]), last])
            own = writer.op("And", [writer.not_after(first, pixel), before_end])
            self._own[level] = writer.op("And", [super().inside(level), own])
        return self._own[level]

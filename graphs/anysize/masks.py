"""Which cells of a canvas are the image's: masks from the extents, one a level, shared by all who need them.

Cell j of a level (stride S, offset A) on a canvas that begins at y0 lies at cell y0/S + j of the image, and the image of
height h has floor((h + A)/S) + 1 cells: it is inside where y0 + S·j < h + A + 1. No division, and nothing to round.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Axes, Batch, Cells, Fixed, Mixed, Positions
from graphs.anysize.sizes import Level, Number, Side, Size, calculate
from graphs.anysize.writer import Writer

_ORIGIN: dict[Side, int] = {"height": 0, "width": 1}
_LENGTH: dict[Side, int] = {"height": 2, "width": 3}

PIXEL_AXES: Axes = (Batch(), Cells(Level("height")), Cells(Level("width")), Fixed(None))


class Masks:
    """Masks and numbers of each sample, written into a graph as they are asked for.

    Args:
        writer: of the graph; what is written here is put at its top.
        image: the graph's input on which the images lie.
        extents: int64 (N,4), as plan.EXTENTS.
        axes: of the image, among them the batch, cells of the height and of the width.
        origins: whether canvases may begin elsewhere than their image; else y0 and x0 are not looked at.
    """

    def __init__(
        self,
        writer: Writer,
        image: ir.Value,
        extents: ir.Value,
        axes: Axes = PIXEL_AXES,
        *,
        origins: bool = True,
    ) -> None:
        self.writer = writer
        self._origins = origins
        self._image = image
        self._batch = axes.index(Batch())
        self._sides = {axis.level.side: index for index, axis in enumerate(axes) if isinstance(axis, Cells)}
        self._extents = extents  # (N,4)
        self._columns: dict[int, ir.Value] = {}
        self._levels: dict[Level, ir.Value] = {}
        self._masks: dict[tuple[object, ...], ir.Value] = {}
        self._numbers: dict[Size, ir.Value] = {}

    def origin(self, side: Side) -> ir.Value:
        """Where each canvas begins in its image, int64 (N,)."""
        return self._column(_ORIGIN[side])

    def length(self, side: Side) -> ir.Value:
        """Height or width of each image, int64 (N,)."""
        return self._column(_LENGTH[side])

    def pixel(self, level: Level) -> ir.Value:
        """Give the first pixel of each cell of a canvas, in its image: y0 + S·j, int64 (N, cells); (cells,) without origins."""
        writer = self.writer
        end = writer.op("Gather", [writer.op("Shape", [self._image]), writer.integer(self._sides[level.side])])
        if level.offset != -1:
            end = writer.op("Add", [end, writer.integer(level.offset + 1)])
        steps = writer.op(
            "Range", [writer.integer(0), end, writer.integer(level.stride)]
        )  # ⌈end / S⌉ of them: the cells
        if not self._origins:
            return steps
        return writer.op("Add", [writer.along("Unsqueeze", self.origin(level.side), [1]), steps])

    def inside(self, level: Level) -> ir.Value:
        """Whether each cell of the canvas is the image's (and within the level's window), bool (N, cells)."""
        if level not in self._levels:
            writer = self.writer
            end = self.length(level.side)
            if level.offset != -1:
                end = writer.op("Add", [end, writer.integer(level.offset + 1)])
            pixel = self.pixel(level)
            inside = writer.op("Less", [pixel, writer.along("Unsqueeze", end, [1])])
            if level.window is not None:
                start, end = (self._times(edge, level.stride) for edge in level.window)
                within = writer.op("And", [writer.not_after(start, pixel), writer.op("Less", [pixel, end])])
                inside = writer.op("And", [inside, within])
            self._levels[level] = inside
        return self._levels[level]

    def mask(self, axes: Axes, chosen: tuple[int, ...]) -> ir.Value:
        """Whether each entry is inside along the chosen axes, bool, to broadcast against a value with those axes."""
        batch = axes.index(Batch())
        parts: list[tuple[int, Cells | Fixed]] = []  # what is flattened in each axis, in order
        for index in chosen:
            parts += [(index, part) for part in _parts(axes[index]) if isinstance(part, Cells | Fixed)]
        key = (len(axes), batch, *chosen, *parts)
        if key not in self._masks:
            self._masks[key] = self._mask(len(axes), batch, chosen, parts)
        return self._masks[key]

    def _mask(self, rank: int, batch: int, chosen: tuple[int, ...], parts: list[tuple[int, Cells | Fixed]]) -> ir.Value:
        writer, whole = self.writer, None
        for index, (_, part) in enumerate(parts):
            if isinstance(part, Cells):
                others = [1 + other for other in range(len(parts)) if other != index]
                inside = self.inside(part.level)
                inside = writer.along("Unsqueeze", inside, others) if others else inside
                whole = inside if whole is None else writer.op("And", [whole, inside])
        assert whole is not None
        if len(parts) > len(chosen):  # flattened axes
            sizes = [part.size if isinstance(part, Fixed) else 1 for _, part in parts]
            if any(size != 1 for size in sizes):
                whole = writer.op("Expand", [whole, writer.integers(1, *(size or 1 for size in sizes))])
            lengths = writer.op("Shape", [whole])
            groups = [[1 + at for at, (axis, _) in enumerate(parts) if axis == index] for index in chosen]
            entries = [writer.op("Gather", [lengths, writer.integers(0)])]
            for group in groups:
                sides = writer.op("Gather", [lengths, writer.integers(*group)])
                entries.append(writer.op("ReduceProd", [sides], keepdims=1))
            whole = writer.op("Reshape", [whole, writer.op("Concat", entries, axis=0)])
        order = sorted((batch, *chosen))
        if order[0] != batch:
            whole = writer.op("Transpose", [whole], perm=[(batch, *chosen).index(axis) for axis in order])
        missing = [axis for axis in range(rank) if axis not in order]
        return writer.along("Unsqueeze", whole, missing) if missing else whole

    def number(self, value: Size | Number) -> ir.Value:
        """Give an expression for each sample, (N,), or a constant: int64, or float32 behind a `Float`."""
        writer = self.writer
        if not isinstance(value, Size):
            return writer.constant(np.array(value, np.float32 if isinstance(value, float) else np.int64))
        if value not in self._numbers:
            if value.op == "batch":
                made = writer.op("Gather", [writer.op("Shape", [self._image]), writer.integer(self._batch)])
            elif value.level is not None:
                made = writer.op("Add", [self.length(value.level.side), writer.integer(value.level.offset)])
                made = writer.op("Div", [made, writer.integer(value.level.stride)])  # >= 0 from the minimum size on
                made = writer.op("Add", [made, writer.integer(1)])
            elif value.op in {"Float", "Integer"}:
                to = ir.DataType.FLOAT if value.op == "Float" else ir.DataType.INT64
                made = writer.op("Cast", [self.number(value.operands[0])], to=int(to))
            else:
                op = "Div" if value.op == "IntegerDiv" else value.op
                made = writer.op(op, [self.number(operand) for operand in value.operands])
            self._numbers[value] = made
        return self._numbers[value]

    def spread(self, number: ir.Value, rank: int, batch: int) -> ir.Value:
        """Give numbers (N,) the axes to broadcast against a value with images along axis `batch`."""
        others = [axis for axis in range(rank) if axis != batch]
        return self.writer.along("Unsqueeze", number, others) if others else number

    def _times(self, edge: Size | Number, stride: int) -> ir.Value:
        number = self.number(calculate("Mul", edge, stride))
        return self.writer.along("Unsqueeze", number, [1]) if isinstance(edge, Size) else number

    def _column(self, index: int) -> ir.Value:
        if index not in self._columns:
            self._columns[index] = self.writer.op("Gather", [self._extents, self.writer.integer(index)], axis=1)
        return self._columns[index]


def _parts(axis: object) -> tuple[object, ...]:
    if isinstance(axis, Positions):
        return axis.sides
    return axis.parts if isinstance(axis, Mixed) else (axis,)

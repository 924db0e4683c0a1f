"""What the axes of a value mean: batch, channels (anything of fixed size), cells along a side of the image, positions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from graphs.anysize.sizes import BATCH, Level, Number, Size, is_sized, product, same


class Unknown(Exception):
    """The compiler cannot follow a node; the message says why, in words for the model's page."""


@dataclass(frozen=True)
class Batch:
    """One entry a sample."""

    @property
    def count(self) -> Size | Number:
        """Entries along the axis, as an expression."""
        return BATCH


@dataclass(frozen=True)
class Fixed:
    """Channels, or anything else whose number does not depend on the image.

    Attributes:
        size: entries; None where it is not known.
    """

    size: int | None

    @property
    def count(self) -> Size | Number:
        """Entries along the axis.

        Raises:
            Unknown: it is not known.
        """
        if self.size is None:
            raise Unknown("the number of its channels is not known")
        return self.size


@dataclass(frozen=True)
class Cells:
    """Cells of a level along one side of the image.

    Attributes:
        level: which; two axes are equal where their levels are.
        first: first pixel that cell 0 sees (negative: in the padding).
        last: last pixel that cell 0 sees, so that a cell's receptive field is last − first + 1.
        front: pixels that a canvas must have before a cell, where the image has them, for the cell to be right: what it sees,
            and what a Slice or a negative padding takes off the canvas on the way.
        back: the last pixel that it must have for cell 0, likewise.
    """

    level: Level
    first: int = field(default=0, compare=False)
    last: int = field(default=0, compare=False)
    front: int = field(default=0, compare=False)
    back: int = field(default=0, compare=False)

    def meeting(self, other: Cells) -> Cells:
        """Give the axis of two values on one level that meet: it sees and needs what either of them does."""
        return Cells(
            self.level,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.front, other.front),
            max(self.back, other.back),
        )

    @property
    def count(self) -> Size | Number:
        """Cells, as an expression."""
        return self.level.count()


@dataclass(frozen=True)
class Positions:
    """Cells of both sides flattened into one axis, the last of `sides` fastest."""

    sides: tuple[Cells, ...]

    @property
    def count(self) -> Size | Number:
        """Positions, as an expression."""
        return product([side.count for side in self.sides])


@dataclass(frozen=True)
class Mixed:
    """Axes of several kinds flattened into one; nothing that looks at positions can take it.

    Attributes:
        parts: what they were.
        size: entries.
    """

    parts: tuple[Axis, ...]
    size: Size | Number = field(compare=False)

    @property
    def count(self) -> Size | Number:
        """Entries, as an expression."""
        return self.size


Axis = Batch | Fixed | Cells | Positions | Mixed
Axes = tuple[Axis, ...]


def cells_of(axis: Axis) -> tuple[Cells, ...]:
    """Sides of the image that an axis has cells of, in order."""
    if isinstance(axis, Cells):
        return (axis,)
    if isinstance(axis, Positions):
        return axis.sides
    if isinstance(axis, Mixed):
        return tuple(cells for part in axis.parts for cells in cells_of(part))
    return ()


def is_spatial(axes: Axes) -> bool:
    """Whether any axis has cells of the image."""
    return any(cells_of(axis) for axis in axes)


def describe(axes: Axes) -> str:
    """Give the axes in words, such as (batch, 64, height/32, width/32)."""

    def word(axis: Axis) -> str:
        match axis:
            case Batch():
                return "batch"
            case Fixed(size):
                return "?" if size is None else str(size)
            case Cells(level):
                return f"{level.side}/{level.stride}" + ("" if level.window is None else " in part")
            case Positions(sides):
                return "·".join(word(side) for side in sides)
            case Mixed(parts):
                return "·".join(word(part) for part in parts)

    return f"({', '.join(map(word, axes))})"


def joined(one: Axis, other: Axis) -> Axis:
    """Give the axis of two values that meet in a pointwise operator.

    Raises:
        Unknown: they are different, and not because one has a single entry.
    """
    if one == Fixed(1):
        return other
    if other == Fixed(1):
        return one
    if isinstance(one, Cells) and isinstance(other, Cells) and one == other:
        return one.meeting(other)
    if isinstance(one, Positions) and one == other:
        return Positions(tuple(a.meeting(b) for a, b in zip(one.sides, other.sides, strict=True)))
    if one == other:
        return one
    if isinstance(one, Fixed) and isinstance(other, Fixed) and None in {one.size, other.size}:
        return Fixed(None)
    if isinstance(one, Cells) and isinstance(other, Cells):
        a, b = one.level, other.level
        raise Unknown(
            f"maps of different geometry meet: floor(({a.side}{a.offset:+d})/{a.stride})+1 cells and "
            f"floor(({b.side}{b.offset:+d})/{b.stride})+1"
        )
    raise Unknown(f"axes of different meaning meet: {describe((one,))} and {describe((other,))}")


def broadcast(operands: list[Axes]) -> Axes:
    """Give the axes of values that meet in a pointwise operator with NumPy's broadcasting.

    Raises:
        Unknown: axes that do not fit.
    """
    rank = max(map(len, operands))
    padded = [(Fixed(1),) * (rank - len(axes)) + axes for axes in operands]
    result = []
    for column in zip(*padded, strict=True):
        axis = column[0]
        for other in column[1:]:
            axis = joined(axis, other)
        result.append(axis)
    return tuple(result)


@dataclass(frozen=True)
class Tensor:
    """What is known of a value: its axes; None where only its being without positions is known."""

    axes: Axes | None

    @property
    def spatial(self) -> bool:
        """Whether the value has positions of the image."""
        return self.axes is not None and is_spatial(self.axes)


@dataclass(frozen=True, eq=False)
class Numbers:
    """A value computed from shapes alone: its entries as expressions.

    Attributes:
        entries: object array of int, float and Size, in the value's own shape.
    """

    entries: np.ndarray

    @property
    def sized(self) -> bool:
        """Whether any entry depends on height or width."""
        return any(is_sized(entry) for entry in self.entries.flat)


@dataclass(frozen=True)
class Lost:
    """A value behind an obstacle."""


Domain = Tensor | Numbers | Lost


def factor(sizes: list[Size | Number], axes: Axes) -> Axes:
    """Give the axes after a Reshape from `axes` to `sizes` (no −1, no 0), in row-major order.

    Raises:
        Unknown: an axis is cut where the compiler cannot follow.
    """
    rest: list[Axis] = [part for axis in axes for part in _parts(axis)]
    result: list[Axis] = []
    for size in sizes:
        taken: list[Axis] = []
        while not same(product([part.count for part in taken]), size):
            while rest and rest[0] == Fixed(1):
                rest.pop(0)
            if not rest:
                raise Unknown(f"it reshapes {describe(axes)} in a way that cannot be followed")
            head = rest.pop(0)
            grown = product([part.count for part in (*taken, head)])
            if isinstance(head, Fixed) and isinstance(size, int) and not taken and head.size and head.size > size > 0:
                if head.size % size:
                    raise Unknown(f"it reshapes {describe(axes)} in a way that cannot be followed")
                taken.append(Fixed(size))
                rest.insert(0, Fixed(head.size // size))
                continue
            if isinstance(head, Fixed) and isinstance(size, int) and isinstance(grown, int) and grown > size:
                have = grown // (head.size or 1)
                if size % have or grown % size:
                    raise Unknown(f"it reshapes {describe(axes)} in a way that cannot be followed")
                taken.append(Fixed(size // have))
                rest.insert(0, Fixed(grown // size))
                continue
            taken.append(head)
        result.append(_merged(taken))
    if any(part != Fixed(1) for part in rest):
        raise Unknown(f"it reshapes {describe(axes)} in a way that cannot be followed")
    return tuple(result)


def _parts(axis: Axis) -> tuple[Axis, ...]:
    return axis.sides if isinstance(axis, Positions) else axis.parts if isinstance(axis, Mixed) else (axis,)


def _merged(parts: list[Axis]) -> Axis:
    size = product([part.count for part in parts])
    kept = [part for part in parts if part != Fixed(1)]
    if not kept:
        return Fixed(1)
    if len(kept) == 1:
        return kept[0]
    if all(isinstance(part, Fixed) for part in kept):
        assert isinstance(size, int)
        return Fixed(size)
    if all(isinstance(part, Cells) for part in kept):
        return Positions(tuple(part for part in kept if isinstance(part, Cells)))
    return Mixed(tuple(kept), size)

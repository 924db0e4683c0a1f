"""The graph for images of nearly equal sizes: those that differ by a few pixels, but not by a cell of any deeper level.

On a canvas as large as the largest of them, such images fill the levels of large stride, where nearly all the work is: nothing
lies outside there, nothing is masked, and convolutions stay fused with what follows them. Masks are left on the levels of small
stride alone, which are few and light. (On ONNX Runtime's CPU provider each Where between convolutions costs two changes of layout.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from graphs.anysize.analysis import analyse, pixel_axes
from graphs.anysize.fold import fold_constants
from graphs.anysize.ragged import make_ragged
from graphs.anysize.sizes import Level, Side
from graphs.front import PIXELS


@dataclass(frozen=True)
class Alike:
    """A ragged graph for images that are alike.

    Attributes:
        model: PIXELS and EXTENTS in, as Plan.ragged, exact where the images of a canvas and the canvas itself are alike.
        levels: on which they must have equally many cells.
    """

    model: ir.Model = field(repr=False)
    levels: frozenset[Level]

    def classes(self, side: Side, lengths: np.ndarray) -> np.ndarray:
        """Number the classes of images along one side.

        Args:
            side: of the images.
            lengths: pixels, int64 (n,).

        Returns:
            (n,) int64: ascending with the length. Two are alike where both their classes are equal. (No level's cells
            become fewer with the length: so their sum is equal only where all of them are.)
        """
        total = np.zeros(len(lengths), np.int64)
        for level in self.levels:
            if level.side == side:
                total += (lengths + level.offset) // level.stride
        return total

    def least(self, side: Side, length: int) -> int:
        """Give the smallest length in pixels, >= 1, that is alike to another one."""
        classes = self.classes(side, np.arange(1, length + 1))
        return 1 + int(np.argmax(classes == classes[-1]))


def make_alike(plain: ir.Model, coarse: int) -> Alike | None:
    """Compile.

    Args:
        plain: a plan's; its plan has a ragged graph. Not changed.
        coarse: stride in pixels from which on levels have no masks.

    Returns:
        The graph; None where there is no such level along one of the sides, and so nothing to save.
    """
    model = plain.clone()
    fold_constants(model)
    (image,) = [value for value in model.graph.inputs if value.name == PIXELS]
    assert image.shape is not None
    channels = image.shape[3]
    assert isinstance(channels, int)
    analysis = analyse(model.graph, {image: pixel_axes(channels)})
    levels = make_ragged(model, analysis, image, coarse)
    return Alike(model, levels) if {level.side for level in levels} == {"height", "width"} else None

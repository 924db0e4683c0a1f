"""A net cut at its last reduction, so that an image can be classified tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphs.anysize.states import State


@dataclass(frozen=True)
class TiledPlan:
    """Trunk, merging, head: `head(merge(trunk(tile) for tile in tiles))` is what the plain graph gives for the whole image.

    Attributes:
        trunk: inputs PIXELS, EXTENTS, OWNED, axis 0 of all is tiles; outputs are the arrays of the states, axis 0 is tiles
            (float64 where they are summed).
        head: inputs are the merged arrays under the same names, axis 0 is images, and EXTENTS (y0 = x0 = 0, the whole
            image's height and width); outputs are the plain graph's, names and order too.
        states: how each tile's arrays merge (states.Merger).
    """

    trunk: ir.Model
    head: ir.Model
    states: tuple[State, ...]

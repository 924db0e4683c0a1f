"""The ragged graph: images of any sizes on one canvas, each answered as if it were alone."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Batch
from graphs.anysize.fill import Fill
from graphs.anysize.masks import Masks
from graphs.anysize.neighbours import fill_neighbours
from graphs.anysize.plan import EXTENTS
from graphs.anysize.reductions import fill_reductions
from graphs.anysize.scalars import drop_parts, own_sizes
from graphs.anysize.sizes import Level
from graphs.anysize.writer import Writer
from graphs.front import make_room


def make_ragged(
    model: ir.Model, analysis: Analysis, image: ir.Value, coarse: int | None = None, *, origins: bool = False
) -> frozenset[Level]:
    """Rewrite a model in place: a second input EXTENTS, and outputs that depend on each image alone.

    Before: analysed without obstacles, no output with positions.
    After: whatever the canvases hold outside the images (inside the net: infinities and NaN too), the outputs are the same.

    Args:
        model: with folded constants.
        analysis: of its graph.
        image: its input, with axes of the batch, the height and the width.
        coarse: stride in pixels of levels on which each image will have as many cells as its canvas, and needs no masks;
            None: masks on all.
        origins: whether canvases are tiles, which begin anywhere in their image.

    Returns:
        The levels on which that is relied upon; none where `coarse` is None.
    """
    graph = model.graph
    axes = analysis.axes(image)
    assert axes is not None
    count = "batch" if image.shape is None else image.shape[axes.index(Batch())]
    make_room(graph, EXTENTS)
    extents = ir.Value(name=EXTENTS, shape=ir.Shape([count, 4]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(extents)
    masks = Masks(Writer(graph), image, extents, axes, origins=origins)
    fill = Fill(analysis, masks, coarse)
    fill_neighbours(graph, fill)
    fill_reductions(fill)
    own_sizes(analysis, masks)
    drop_parts(analysis)
    RemoveUnusedNodesPass()(model)
    return frozenset(fill.full)

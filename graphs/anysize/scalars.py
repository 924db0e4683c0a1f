"""Numbers from the size of the map in arithmetic: each image's own, where the graph computes the canvas's.

A sum that is divided by Shape's height times width, a bin of a pyramid cut at ⌊i·H/n⌋: on a canvas these have to be numbers
of each sample.
"""

from __future__ import annotations

import onnx_ir as ir

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Batch, Numbers
from graphs.anysize.masks import Masks


def own_sizes(analysis: Analysis, masks: Masks) -> None:
    """Rewrite operands that are computed from height or width, in place.

    Before: one number for all samples, of the canvas.
    After: one number a sample, of its image, along the axis of the images.
    """
    for node, index in analysis.sized:
        value = node.inputs[index]
        assert value is not None
        numbers, axes = analysis.domain[value], analysis.axes(node.outputs[0])
        assert isinstance(numbers, Numbers)
        assert axes is not None
        number = masks.number(numbers.entries.flat[0])
        number = masks.writer.op("Cast", [number], to=int(value.dtype or ir.DataType.FLOAT))
        node.replace_input_with(index, masks.spread(number, len(axes), axes.index(Batch())))


def drop_parts(analysis: Analysis) -> None:
    """Take Slices away that cut bins out of a map.

    Before: a Slice between numbers computed from the size, the same for all samples.
    After: the whole map, whose axis has a level with a window; what reduces it masks by each sample's own.
    """
    for node in analysis.parts:
        source = node.inputs[0]
        assert source is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], source)

"""AveragePool near an image's own border: the right sum over the right number of cells.

What an average divides by depends on how far the image reaches, not the canvas:

    count_include_pad = 0   its own cells in the window        AveragePool(filled) / AveragePool(mask), in which k² cancels
    count_include_pad = 1   all k² cells                       AveragePool(filled)
      and ceil_mode         those not behind the padding       (as count_include_pad = 0) · own cells / cells up to the padding
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Batch, Cells
from graphs.anysize.fill import Fill
from graphs.anysize.windows import Window


def divide_by_own_cells(node: ir.Node, looks: tuple[Window, ...], spatial: tuple[int, ...], fill: Fill) -> None:
    """Rewrite an AveragePool whose windows look behind the image's last cell.

    After: every window of the image's own cells gives the average that it gives in the image alone.

    Args:
        node: the AveragePool.
        looks: its windows, one an axis of its input.
        spatial: axes of its input that have cells.
        fill: of the graph.
    """
    analysis, writer = fill.analysis, fill.masks.writer
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    axes = analysis.view(node).axes(0)
    padded = bool(node.attributes.get_int("count_include_pad", 0))
    hanging = any(looks[index].reach > looks[index].floor for index in spatial)
    node.replace_input_with(0, fill(source, spatial, "zero"))
    if padded and not hanging:
        return
    node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    users = list(result.uses())
    dtype = result.dtype or ir.DataType.FLOAT
    mask = writer.op("Cast", [fill.masks.mask(axes, spatial)], to=int(dtype))
    share = writer.op("AveragePool", [mask], after=node, **_attributes(node))
    if any(looks[index].dilation > 1 for index in spatial):  # taps that all miss the image: 0, as ORT gives, not 0/0
        zero, one = (writer.constant(np.array(number, dtype.numpy())) for number in (0, 1))
        empty = writer.op("Equal", [share, zero], after=share.producer())
        share = writer.op("Where", [empty, one, share], after=empty.producer())
    exact = writer.op("Div", [result, share], after=share.producer())
    if padded:
        for index in spatial:
            factor = _own_of_counted(axes[index], looks[index], fill, dtype)  # (N, cells)
            others = [axis for axis in range(len(axes)) if axis not in {index, axes.index(Batch())}]
            factor = writer.along("Unsqueeze", factor, others)
            exact = writer.op("Mul", [exact, factor], after=exact.producer())
    fill.replace(result, exact, users)


def _own_of_counted(axis: object, look: Window, fill: Fill, dtype: ir.DataType) -> ir.Value:
    """Own cells in each window along one side, over cells up to the padding's end, (N, cells)."""
    assert isinstance(axis, Cells)
    masks, writer = fill.masks, fill.masks.writer
    level = axis.level.step(look.stride, look.reach)
    cells = writer.along("Unsqueeze", masks.number(axis.level.count()), [1])
    first = writer.op("Div", [masks.pixel(level), writer.integer(axis.level.stride)])  # exact: origins are aligned
    first = writer.op("Sub", [first, writer.integer(look.before)])

    def taps(end: ir.Value) -> ir.Value:
        """Count those before a cell: ⌈(end − first) / dilation⌉, of the kernel's."""
        reach = writer.op("Add", [writer.op("Sub", [end, first]), writer.integer(look.dilation - 1)])
        reach = writer.op("Div", [writer.larger(reach, writer.integer(0)), writer.integer(look.dilation)])
        return writer.smaller(reach, writer.integer(look.kernel))

    own = writer.op("Sub", [taps(cells), taps(writer.integer(0))])
    counted = taps(writer.op("Add", [cells, writer.integer(look.after)]))
    return writer.op("Div", [writer.op("Cast", [number], to=int(dtype)) for number in (own, counted)])


def _attributes(node: ir.Node) -> dict[str, int | float | str | tuple[int, ...]]:
    return {name: attribute.value for name, attribute in node.attributes.items()}

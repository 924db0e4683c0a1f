"""Before every operator that looks at neighbours: what it would have seen at the image's own border.

    Conv, LpPool, AveragePool   zero
    MaxPool                     the lowest finite value
    Pad                         the value that it pads with

Only where a window of the image's own cells can look behind the image's last cell; an overlapping Conv always, since
implementations that transform tiles (Winograd, FFT) let what lies in a tile into all its results.
"""

from __future__ import annotations

import onnx_ir as ir

from graphs.anysize.averages import divide_by_own_cells
from graphs.anysize.domains import cells_of
from graphs.anysize.fill import Fill, Filling
from graphs.anysize.windows import Window, pad_windows, windows


def fill_neighbours(graph: ir.Graph, fill: Fill) -> None:
    """Rewrite a graph in place.

    Before: results of Conv, pooling and Pad near an image's right and bottom edge depend on what else is on its canvas.
    After: cells of the image's own levels depend on the image alone, provided that the operators' inputs do.

    Args:
        graph: analysed, without obstacles; its values may be used in other rewrites too.
        fill: of that graph.
    """
    for node in list(graph):
        if node.op_type in {"Conv", "MaxPool", "LpPool", "AveragePool", "Pad"} and fill.analysis.spatial(
            node.inputs[0]
        ):
            _fill(node, fill)


def _fill(node: ir.Node, fill: Fill) -> None:
    source, view = node.inputs[0], fill.analysis.view(node)
    assert source is not None
    axes = view.axes(0)
    if fill.is_full(axes, range(len(axes))):
        return
    looks = pad_windows(view) if node.op_type == "Pad" else (Window(), Window(), *windows(view))
    spatial = tuple(index for index, axis in enumerate(axes) if cells_of(axis))
    behind = any(looks[index].overhang > 0 for index in spatial)
    mixing = any(looks[index].span >= looks[index].stride for index in spatial)
    if node.op_type == "AveragePool":
        if behind:
            divide_by_own_cells(node, looks, spatial, fill)
    elif behind or (node.op_type == "Conv" and mixing):
        filling: Filling | ir.Value = "lowest" if node.op_type == "MaxPool" else "zero"
        if node.op_type == "Pad" and view.has(2):
            filling = view.value(2)
        node.replace_input_with(0, fill(source, spatial, filling))

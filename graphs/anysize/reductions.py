"""Reductions over positions, in the middle of a net (squeeze-and-excitation) as at its end: over the image's own alone.

ReduceSum, L1, L2, SumSquare, LogSum, GlobalLpPool, MatMul over positions    outside is 0
ReduceMax, GlobalMaxPool, TopK, Softmax, LogSoftmax, ReduceLogSumExp         outside is the lowest finite value
ReduceMin, TopK of the smallest                                              outside is the highest
ReduceProd                                                                   outside is 1
ReduceMean, GlobalAveragePool                                                a sum over the true number of cells
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphs.anysize.analysis import Reduction
from graphs.anysize.domains import Axes, Batch
from graphs.anysize.fill import Fill, Filling
from graphs.anysize.masks import Masks
from graphs.anysize.sizes import calculate, product

_FILLING: dict[str, Filling] = {
    "ReduceL1": "zero",
    "ReduceL2": "zero",
    "ReduceLogSum": "zero",
    "ReduceSum": "zero",
    "ReduceSumSquare": "zero",
    "GlobalLpPool": "zero",
    "MatMul": "zero",
    "ReduceMax": "lowest",
    "GlobalMaxPool": "lowest",
    "Softmax": "lowest",
    "LogSoftmax": "lowest",
    "ReduceLogSumExp": "lowest",
    "ReduceMin": "highest",
    "ReduceProd": "one",
}


def fill_reductions(fill: Fill) -> None:
    """Rewrite the reductions that the analysis found, in place.

    Before: they take every cell of the canvas.
    After: each gives for every sample what it gives for the image alone.

    Args:
        fill: of the analysed graph.
    """
    for reduction in fill.analysis.reductions:
        node = reduction.node
        if all(fill.is_full(_axes_of(source, fill), chosen) for source, chosen in reduction.sources):
            continue
        if node.op_type in {"ReduceMean", "GlobalAveragePool"}:
            _mean(reduction, fill)
            continue
        if node.op_type == "InstanceNormalization":
            _instance_normalization(reduction, fill)
            continue
        filling = _FILLING.get(node.op_type)
        if filling is None:  # TopK
            filling = "lowest" if node.attributes.get_int("largest", 1) else "highest"
        for index, (source, chosen) in enumerate(reduction.sources):  # inputs 0 and 1 of a MatMul, 0 of all others
            node.replace_input_with(index, fill(source, chosen, filling))


def _axes_of(source: ir.Value, fill: Fill) -> Axes:
    axes = fill.analysis.axes(source)
    assert axes is not None
    return axes


def _mean(reduction: Reduction, fill: Fill) -> None:
    """ReduceMean and GlobalAveragePool, in place."""
    node = reduction.node
    ((source, chosen),) = reduction.sources
    keep = node.op_type == "GlobalAveragePool" or bool(node.attributes.get_int("keepdims", 1))
    axes = _axes_of(source, fill)
    mean = average(fill(source, chosen, "zero"), axes, chosen, fill.masks, after=node)
    if not keep:
        mean = fill.masks.writer.along("Squeeze", mean, list(chosen), after=mean.producer())
    fill.replace(node.outputs[0], mean, list(node.outputs[0].uses()))


def average(total: ir.Value, axes: Axes, chosen: tuple[int, ...], masks: Masks, *, after: ir.Node) -> ir.Value:
    """Write Σ / count, over all axes at once if the graph does so: ONNX Runtime then adds in the order that it adds one image's.

    Args:
        total: filled with zero outside.
        axes: of it.
        chosen: those to average over; they stay, with one entry.
        masks: of the graph.
        after: node that the new nodes follow.
    """
    writer, dtype = masks.writer, total.dtype or ir.DataType.FLOAT
    half = dtype in {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}  # whose sums, and counts, overflow
    exact = ir.DataType.FLOAT if half else dtype
    place: ir.Node | None = after
    if half:
        total = writer.op("Cast", [total], after=place, to=int(exact))
        place = total.producer()
    total = writer.along("ReduceSum", total, chosen, after=place, keepdims=1)
    place = total.producer()
    count = product([axes[index].count for index in chosen])
    number = writer.op("Cast", [masks.number(calculate("Integer", count))], to=int(exact))
    mean = writer.op("Div", [total, masks.spread(number, len(axes), axes.index(Batch()))], after=place)
    return writer.op("Cast", [mean], after=mean.producer(), to=int(dtype)) if half else mean


def _instance_normalization(reduction: Reduction, fill: Fill) -> None:
    """Write (x − mean) / √(mean((x − mean)²) + ε) · scale + bias in place of the node."""
    node, masks = reduction.node, fill.masks
    ((source, chosen),) = reduction.sources
    axes = _axes_of(source, fill)
    filled = fill(source, chosen, "zero")
    dtype, rank = source.dtype or ir.DataType.FLOAT, len(axes)
    mean = average(filled, axes, chosen, masks, after=node)

    def then(kind: str, before: ir.Value, *others: ir.Value) -> ir.Value:
        value = masks.writer.op(kind, [before, *others], after=place.producer() if place is not None else None)
        value.dtype = dtype
        return value

    place = mean
    place = centred = then("Sub", node.inputs[0] or source, mean)
    zero = masks.writer.constant(np.array(0, dtype.numpy()))
    place = inside = masks.writer.op("Where", [masks.mask(axes, chosen), centred, zero], after=place.producer())
    inside.dtype = dtype
    place = square = then("Mul", inside, inside)
    after = square.producer()
    assert after is not None
    place = variance = average(square, axes, chosen, masks, after=after)
    epsilon = masks.writer.constant(np.array(node.attributes.get_float("epsilon", 1e-5), dtype.numpy()))
    place = then("Add", variance, epsilon)
    place = then("Sqrt", place)
    place = then("Div", centred, place)
    for kind, parameter in (("Mul", node.inputs[1]), ("Add", node.inputs[2])):
        assert parameter is not None
        shaped = masks.writer.along("Unsqueeze", parameter, list(range(1, rank - 1)), after=place.producer())
        place = masks.writer.op(kind, [place, shaped], after=shaped.producer())
    fill.replace(node.outputs[0], place, list(node.outputs[0].uses()))

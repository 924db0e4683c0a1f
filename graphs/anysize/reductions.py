"""Reductions over positions, in the middle of a net (squeeze-and-excitation) as at its end: over the image's own alone.

ReduceSum, L1, L2, SumSquare, LogSum, GlobalLpPool, MatMul over positions    outside is 0
ReduceMax, GlobalMaxPool, TopK, Softmax, LogSoftmax, ReduceLogSumExp         outside is the lowest finite value
ReduceMin, TopK of the smallest                                              outside is the highest
ReduceProd                                                                   outside is 1
ReduceMean, GlobalAveragePool                                                a sum over the true number of cells
"""

from __future__ import annotations

import onnx_ir as ir

from graphs.anysize.analysis import Reduction
from graphs.anysize.domains import Batch
from graphs.anysize.fill import Fill, Filling
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
        if node.op_type in {"ReduceMean", "GlobalAveragePool"}:
            _mean(reduction, fill)
            continue
        filling = _FILLING.get(node.op_type)
        if filling is None:  # TopK
            filling = "lowest" if node.attributes.get_int("largest", 1) else "highest"
        for index, (source, chosen) in enumerate(reduction.sources):  # inputs 0 and 1 of a MatMul, 0 of all others
            node.replace_input_with(index, fill(source, chosen, filling))


def _mean(reduction: Reduction, fill: Fill) -> None:
    """Σ / count, the columns first and then the rows: ONNX Runtime adds float32 one after another, and so drifts less."""
    node, writer = reduction.node, fill.masks.writer
    ((source, chosen),) = reduction.sources
    axes = fill.analysis.axes(source)
    assert axes is not None
    dtype = source.dtype or ir.DataType.FLOAT
    keep = node.op_type == "GlobalAveragePool" or bool(node.attributes.get_int("keepdims", 1))
    total = fill(source, chosen, "zero")
    place = node
    exact = ir.DataType.FLOAT if dtype in {ir.DataType.FLOAT16, ir.DataType.BFLOAT16} else dtype
    if exact != dtype:
        total = writer.op("Cast", [total], after=total.producer(), to=int(exact))
    for axis in sorted(chosen, reverse=True):
        total = writer.along("ReduceSum", total, [axis], after=place, keepdims=1)
        found = total.producer()
        assert found is not None
        place = found
    count = product([axes[index].count for index in chosen])
    number = writer.op("Cast", [fill.masks.number(calculate("Integer", count))], to=int(exact))
    number = fill.masks.spread(number, len(axes), axes.index(Batch()))
    mean = writer.op("Div", [total, number], after=place)
    if exact != dtype:
        mean = writer.op("Cast", [mean], after=mean.producer(), to=int(dtype))
    if not keep:
        mean = writer.along("Squeeze", mean, list(chosen), after=mean.producer())
    fill.replace(node.outputs[0], mean, list(node.outputs[0].uses()))

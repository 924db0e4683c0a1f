"""The rules of the analysis, by operator: the axes of a node's results, and what it reduces."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graphs.anysize.domains import (
    Axes,
    Axis,
    Batch,
    Fixed,
    Numbers,
    Unknown,
    broadcast,
    cells_of,
    describe,
    is_spatial,
)
from graphs.anysize.layouts import LAYOUTS, gemm_axes, matmul_axes, split
from graphs.anysize.view import View, place
from graphs.anysize.windows import pad_windows, slice_axes, window_axes, windows

POINTWISE = frozenset(
    """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Clip
    Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid
    Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor""".split()  # noqa: SIM905
)
"""Every entry of the result depends on the same entry of the operands, broadcast."""

FIRST_ONLY = frozenset({"CastLike", "BatchNormalization", "QuantizeLinear", "DequantizeLinear", "LRN"})
"""The result has the first operand's axes; the others are parameters of channels."""

POOLINGS = frozenset({"MaxPool", "AveragePool", "LpPool"})

REDUCES = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare""".split()  # noqa: SIM905
)

GLOBAL_POOLINGS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"})

REASONS = {
    "Resize": "positions of the result lie between positions of the map, at places that depend on the image's size",
    "Upsample": "positions of the result lie between positions of the map, at places that depend on the image's size",
    "ConvTranspose": "transposed convolutions are not followed",
    "ArgMax": "the index of a position is not the same on a canvas",
    "ArgMin": "the index of a position is not the same on a canvas",
    "NonZero": "the number of its results depends on the values",
    "Range": "it counts positions, as position embeddings do",
    "GridSample": "it samples at computed places",
}


@dataclass(frozen=True)
class Result:
    """What a rule says of a node.

    Attributes:
        axes: of its outputs that are known.
        reduced: inputs whose positions are reduced, with the axes in each.
        sized: inputs that are one number, computed from height or width.
        part: whether it takes a part of the cells that depends on the size.
    """

    axes: tuple[Axes, ...]
    reduced: tuple[tuple[ir.Value, tuple[int, ...]], ...] = ()
    sized: tuple[int, ...] = ()
    part: bool = False


def follow(view: View) -> Result:  # noqa: PLR0911  # one return an operator
    """Give the axes of a node's results.

    Raises:
        Unknown: there is no rule for it, or none for these inputs.
    """
    op = view.node.op_type
    if op in POINTWISE:
        return _pointwise(view)
    if op in FIRST_ONLY:
        return _first_only(view)
    if op in POOLINGS:
        return _pooling(view)
    if op == "Conv":
        return Result((window_axes(view, view.axes(1)[0]),))
    if op == "Pad":
        looks = pad_windows(view)
        return Result((tuple(look.after_it(axis) for look, axis in zip(looks, view.axes(0), strict=True)),))
    if op == "Slice":
        axes, part = slice_axes(view)
        return Result((axes,), part=part)
    if op in LAYOUTS:
        return Result((LAYOUTS[op](view),))
    if op == "Split":
        return Result(split(view))
    if op in {"MatMul", "Gemm"}:
        return _product(view)
    return _reduction(view)


def _first_only(view: View) -> Result:
    op, axes = view.node.op_type, view.axes(0)
    if op == "BatchNormalization" and view.integer("training_mode", 0):
        raise Unknown("it normalises by the batch's own statistics")
    if op == "LRN" and cells_of(axes[1]):
        raise Unknown(f"it takes positions together: {describe(axes)} along 1")
    return Result((axes,))


def _pooling(view: View) -> Result:
    axes = view.axes(0)
    if len([output for output in view.node.outputs if output.uses()]) > 1:
        raise Unknown("the index of a position is not the same on a canvas")
    result = window_axes(view, axes[1])
    of_channels = [not (look.trivial or cells_of(axis)) for look, axis in zip(windows(view), axes[2:], strict=True)]
    if view.node.op_type == "AveragePool" and is_spatial(axes) and any(of_channels):
        raise Unknown("it averages channels together with positions")  # what it divides by depends on both
    return Result((result,))


def _pointwise(view: View) -> Result:
    operands, sized = [], []
    for index, value in enumerate(view.node.inputs):
        if value is None:
            continue
        domain = view.of(index)
        if isinstance(domain, Numbers) and domain.sized:
            if domain.entries.size != 1 or view.node.op_type == "Clip":  # whose bounds are the same for all images
                raise Unknown("the size of the map flows into it as a number")
            sized.append(index)
        else:
            operands.append(view.axes(index))
    axes = broadcast(operands)
    if sized and Batch() not in axes:
        raise Unknown("the size of the map flows into it as a number, and no axis holds the images")
    return Result((axes,), sized=tuple(sized))


def _product(view: View) -> Result:
    axes, (left, right) = matmul_axes(view) if view.node.op_type == "MatMul" else gemm_axes(view)
    if not cells_of(left):
        return Result((axes,))
    a, b = view.axes(0), view.axes(1)
    if left != right:  # weights of one row, for maps of one cell
        raise Unknown(
            f"a fully connected layer over {describe((left,))}: its weights are of one map's size, "
            "other sizes have no answer"
        )
    return Result((axes,), ((view.value(0), (len(a) - 1,)), (view.value(1), (len(b) - 2,))))


def _reduction(view: View) -> Result:
    op = view.node.op_type
    if op in REDUCES or op in {"ArgMax", "ArgMin"}:
        axes = view.axes()
        if op in REDUCES:
            listed = view.listed("axes", 1)
            if not listed and view.integer("noop_with_empty_axes", 0):
                return Result((axes,))
        else:
            listed = (view.integer("axis", 0),)
        chosen = {place(axis, len(axes)) for axis in listed or range(len(axes))}
        if op not in REDUCES and any(cells_of(axes[index]) for index in chosen):
            raise Unknown(REASONS[op])
        return _reduced(view, chosen, keep=bool(view.integer("keepdims", 1)))
    if op in GLOBAL_POOLINGS:
        return _reduced(view, set(range(2, len(view.axes()))), keep=True)
    if op in {"Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum", "LayerNormalization"}:
        return _along(view)
    if op == "TopK":
        return _top_k(view)
    if op == "InstanceNormalization":
        normalised = tuple(range(2, len(view.axes())))
        spatial = any(cells_of(axis) for axis in view.axes()[2:])
        return Result((view.axes(),), ((view.value(0), normalised),) if spatial else ())
    raise Unknown(REASONS.get(op, f"the compiler does not know what {op} does with positions"))


def _reduced(view: View, chosen: set[int], *, keep: bool) -> Result:
    axes = view.axes()
    if Batch() in [axes[index] for index in chosen] and any(cells_of(axis) for axis in axes):
        raise Unknown("it reduces over the images of a batch")
    left: list[Axis] = [Fixed(1) if index in chosen else axis for index, axis in enumerate(axes)]
    result = tuple(axis for index, axis in enumerate(left) if keep or index not in chosen)
    spatial = any(cells_of(axes[index]) for index in chosen)
    return Result((result,), ((view.value(0), tuple(sorted(chosen))),) if spatial else ())


def _along(view: View) -> Result:
    """Softmax and its like: the axes stay, entries along one of them are compared with each other."""
    axes, op = view.axes(), view.node.op_type
    default = 1 if view.opset < 13 and op in {"Softmax", "LogSoftmax", "Hardmax"} else -1
    at = int(view.array(1).item()) if op == "CumSum" else view.integer("axis", default)
    at = place(at, len(axes))
    if op == "LayerNormalization" or (view.opset < 13 and op in {"Softmax", "LogSoftmax", "Hardmax"}):
        looked = range(at, len(axes))  # before opset 13 a Softmax flattens what lies behind its axis
    else:
        looked = range(at, at + 1)
    spatial = tuple(index for index in looked if cells_of(axes[index]))
    if not spatial:
        return Result((axes,))
    if op not in {"Softmax", "LogSoftmax"} or len(looked) > 1:
        raise Unknown(f"it takes positions together: {describe(axes)} along {list(looked)}")
    return Result((axes,), ((view.value(0), spatial),))


def _top_k(view: View) -> Result:
    axes = view.axes()
    at = place(view.integer("axis", -1), len(axes))
    k = view.numbers(1).ravel()[0]
    if not isinstance(k, int):
        raise Unknown("the number k of values to keep depends on the image's size")
    result = (*axes[:at], Fixed(k), *axes[at + 1 :])
    if not cells_of(axes[at]):
        return Result((result, result))
    if any(output.uses() or output.is_graph_output() for output in view.node.outputs[1:]):
        raise Unknown("the index of a position is not the same on a canvas")
    return Result((result, result), ((view.value(0), (at,)),))

"""Operators one at a time: mixed sizes on canvases of NaN and infinities, against each image alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graphs.anysize.rules import REDUCES
from tests.graphs.anysize.drafts import Draft, Write, obstacles, worst
from tests.graphs.anysize.exactness import BOUND


def positions(d: Draft, x: ir.Value, channels: int = 3) -> ir.Value:
    """(N,C,h,w) to (N,C,h·w), by Shape as exporters write it."""
    shape = d.op("Shape", x)
    area = d.op("Mul", *(d.op("Gather", shape, d.const([axis])) for axis in (2, 3)))
    return d.op("Reshape", x, d.op("Concat", d.op("Gather", shape, d.const([0])), d.const([channels]), area, axis=0))


def count(d: Draft, x: ir.Value) -> ir.Value:
    """h·w as one float."""
    shape = d.op("Shape", x)
    area = d.op("Mul", *(d.op("Gather", shape, d.const(axis)) for axis in (2, 3)))
    return d.op("Cast", area, to=int(ir.DataType.FLOAT))


def shuffled(d: Draft) -> ir.Value:
    """ShuffleNet's: channels in two groups, interleaved."""
    x = d.conv(d.x, out=6, pads=[1, 1, 1, 1])
    x = d.op("Reshape", x, d.op("Concat", d.op("Shape", x, end=1), d.const([2, 3]), d.op("Shape", x, start=2), axis=0))
    x = d.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    shape = d.op("Shape", x)
    x = d.op(
        "Reshape",
        x,
        d.op(
            "Concat",
            d.op("Slice", shape, d.const([0]), d.const([1])),
            d.const([6, -1]),
            d.op("Gather", shape, d.const([4])),
            axis=0,
        ),
    )
    return d.pooled(d.conv(x, 6, pads=[1, 1, 1, 1], group=2))


def excited(d: Draft) -> ir.Value:
    """Squeeze and excitation between two convolutions."""
    x = d.op("Relu", d.conv(d.x, pads=[1, 1, 1, 1]))
    gate = d.op("Sigmoid", d.conv(d.op("Relu", d.conv(d.op("GlobalAveragePool", x), 4, 2, (1, 1))), 2, 4, (1, 1)))
    return d.pooled(d.conv(d.op("Mul", x, gate), 4, pads=[1, 1, 1, 1]))


def layer_normalised(d: Draft) -> ir.Value:
    x = d.op("Transpose", d.conv(d.x, k=(7, 7), out=4, pads=[3, 3, 3, 3]), perm=[0, 2, 3, 1])
    x = d.op("LayerNormalization", x, d.weights(4), d.weights(4), axis=-1, epsilon=1e-6)
    x = d.op("Add", d.op("MatMul", x, d.weights(4, 5)), d.weights(5))
    x = d.op("Gelu", x)
    return d.pooled(d.conv(d.op("Transpose", x, perm=[0, 3, 1, 2]), 5, pads=[1, 1, 1, 1]))


def attention(d: Draft) -> ir.Value:
    """A query over positions: softmax(q·k) v, positions as (N,h·w,C)."""
    x = d.op("Transpose", positions(d, d.conv(d.x, pads=[1, 1, 1, 1]), 4), perm=[0, 2, 1])
    score = d.op("Transpose", d.op("MatMul", x, d.weights(4, 2)), perm=[0, 2, 1])
    return d.op("MatMul", d.op("Softmax", score, axis=-1), x)


def self_attention(d: Draft) -> ir.Value:
    """Every position attends to every other one; then the mean."""
    x = d.op("Transpose", positions(d, d.conv(d.x, strides=[2, 2], pads=[1, 1, 1, 1]), 4), perm=[0, 2, 1])
    keys = d.op("Transpose", d.op("MatMul", x, d.weights(4, 4)), perm=[0, 2, 1])
    mixed = d.op("MatMul", d.op("Softmax", d.op("MatMul", x, keys), axis=-1), x)
    return d.reduce("ReduceMean", mixed, [1], 0)


def covariance(d: Draft) -> ir.Value:
    """Second order: (x − mean) (x − mean)ᵀ / (h·w)."""
    x = positions(d, d.conv(d.x, pads=[1, 1, 1, 1]), 4)
    x = d.op("Sub", x, d.reduce("ReduceMean", x, [2]))
    square = d.op("MatMul", x, d.op("Transpose", x, perm=[0, 2, 1]))
    return d.op("Div", square, count(d, d.x))


def deviation(d: Draft) -> ir.Value:
    """Unbiased: √(Σ (x − mean)² / (h·w − 1)); one pixel more keeps it finite."""
    x = d.conv(d.x, pads=[1, 1, 2, 2])
    centred = d.op("Sub", x, d.reduce("ReduceMean", x, [2, 3]))
    total = d.reduce("ReduceSum", d.op("Mul", centred, centred), [2, 3], 0)
    return d.op("Sqrt", d.op("Div", total, d.op("Sub", count(d, x), d.const(1.0))))


def bins(d: Draft) -> ir.Value:
    """Halves of the rows, as adaptive pooling cuts them: a middle row belongs to both."""
    x = d.conv(d.x, strides=[2, 2], pads=[1, 1, 1, 1])
    rows = d.op("Shape", x, start=2, end=3)
    upper = d.op("Div", d.op("Add", rows, d.const([1])), d.const([2]))
    lower = d.op("Div", rows, d.const([2]))
    halves = [d.op("Slice", x, d.const([0]), upper, d.const([2])), d.op("Slice", x, lower, rows, d.const([2]))]
    return d.op("Concat", *[d.pooled(half) for half in halves], axis=1)


def group_normalised(d: Draft) -> ir.Value:
    """As torch's exporter writes GroupNorm before opset 21."""
    x = d.conv(d.x, pads=[1, 1, 1, 1])
    flat = d.op(
        "InstanceNormalization", d.op("Reshape", x, d.const([0, 2, -1])), d.const([1.0, 1.0]), d.const([0.0, 0.0])
    )
    x = d.op("Reshape", flat, d.op("Shape", x))
    return d.pooled(d.conv(d.op("Mul", x, d.weights(4, 1, 1)), 4, pads=[1, 1, 1, 1]))


def channels(d: Draft) -> ir.Value:
    """Split, concatenate, slice and pick channels."""
    x = d.conv(d.x, out=6, pads=[1, 1, 1, 1])
    left, right = d.ops("Split", x, d.const([2, 4]), outputs=2, axis=1)
    right = d.op("Slice", right, d.const([1]), d.const([3]), d.const([1]))
    x = d.op("Concat", d.conv(left, 2, 2, pads=[1, 1, 1, 1]), right, d.op("Gather", x, d.const([5, 0]), axis=1), axis=1)
    return d.pooled(d.conv(x, 6, pads=[2, 2, 2, 2], k=(5, 5)))


def pointwise(d: Draft) -> ir.Value:
    x = d.op("BatchNormalization", d.conv(d.x), *[d.const(np.abs(d.rng.normal(size=4)) + 0.1) for _ in range(4)])
    for kind in ("HardSwish", "Softplus", "Elu", "Erf", "Tanh"):
        x = d.op(kind, x)
    x = d.op("PRelu", x, d.weights(4, 1, 1))
    x = d.op(
        "Clip", d.op("Add", d.op("Mul", x, d.weights(1, 4, 1, 1)), d.weights(4, 1, 1)), d.const(-1.0), d.const(1.0)
    )
    return d.pooled(d.conv(x, 4, pads=[1, 1, 1, 1]))


def expanded(d: Draft) -> ir.Value:
    """The image's mean beside its features at every position, as in context modules."""
    x = d.conv(d.x, pads=[1, 1, 1, 1])
    mean = d.op("Expand", d.reduce("ReduceMean", x, [2, 3]), d.op("Shape", x))
    return d.pooled(d.conv(d.op("Concat", x, mean, axis=1), 8, pads=[1, 1, 1, 1]))


def rows_and_back(d: Draft) -> ir.Value:
    """Positions of all images as rows, and back by −1, behind patches: no cell below four pixels."""
    x = d.op("Transpose", d.conv(d.x, k=(4, 4), strides=[4, 4]), perm=[0, 2, 3, 1])
    sides = [d.op("Gather", d.op("Shape", x), d.const([axis])) for axis in (1, 2)]
    rows = d.op("Gemm", d.op("Reshape", x, d.const([-1, 4])), d.weights(4, 5))
    x = d.op("Reshape", rows, d.op("Concat", d.const([-1]), *sides, d.const([5]), axis=0))
    return d.pooled(d.op("Transpose", x, perm=[0, 3, 1, 2]))


def cropped_by_shape(d: Draft) -> ir.Value:
    """x[:, :, 1:h−1], with h from the map's shape."""
    x = d.conv(d.x)
    end = d.op("Sub", d.op("Gather", d.op("Shape", x), d.const([2])), d.const([1]))
    return d.pooled(d.conv(d.op("Slice", x, d.const([1]), end, d.const([2])), 4, pads=[1, 1, 1, 1]))


def quantised(d: Draft) -> ir.Value:
    """A pooling of bytes; the file says nothing of the values between its nodes."""
    scale, zero = d.const(np.float32(0.05)), d.const(np.array(128), np.uint8)
    x = d.op(
        "MaxPool", d.op("QuantizeLinear", d.x, scale, zero), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    return d.pooled(d.conv(d.op("DequantizeLinear", x, scale, zero), pads=[1, 1, 1, 1]))


def stacked(d: Draft, x: ir.Value, **attributes: Any) -> ir.Value:
    """An average over channels and positions: (N,1,C,h,w)."""
    x = d.op("Unsqueeze", d.conv(x), d.const([1]))
    x = d.op("AveragePool", x, kernel_shape=[3, 3, 3], pads=[1] * 6, **attributes)
    return d.reduce("ReduceMean", x, [1, 3, 4], 0)


def in_turn(kind: str) -> Write:
    """One spatial axis after the other."""
    return lambda d: d.reduce(kind, d.reduce(kind, d.conv(d.x, pads=[1, 1, 1, 1]), [3], 0), [2], 0)


def at_once(kind: str) -> Write:
    def write(d: Draft) -> ir.Value:
        x = d.conv(d.x, pads=[1, 1, 1, 1])
        if kind == "ReduceLogSum":
            x = d.op("Add", d.op("Abs", x), d.const(0.5))
        if kind == "ReduceProd":  # near 1: the product of thousands neither overflows nor vanishes
            x = d.op("Add", d.op("Mul", d.op("Tanh", x), d.const(1e-3)), d.const(1.0))
        return d.reduce(kind, x, [2, 3], 0)

    return write


GRAPHS: dict[str, Write] = {
    "shuffle": shuffled,
    "squeeze-excitation": excited,
    "layernorm": layer_normalised,
    "attention": attention,
    "self-attention": self_attention,
    "second-order": covariance,
    "standard-deviation": deviation,
    "bins": bins,
    "groupnorm": group_normalised,
    "channels": channels,
    "pointwise": pointwise,
    "expand": expanded,
    "asymmetric": lambda d: d.pooled(d.conv(d.x, k=(4, 3), pads=[0, 2, 3, 0], strides=[3, 2])),
    "dilated": lambda d: d.pooled(d.conv(d.x, k=(3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])),
    "grouped": lambda d: d.pooled(d.conv(d.x, out=6, group=3, k=(5, 3), pads=[2, 1, 2, 1])),
    "same-upper": lambda d: d.pooled(d.conv(d.x, k=(4, 2), auto_pad="SAME_UPPER")),
    "same-lower": lambda d: d.pooled(d.conv(d.x, k=(4, 2), auto_pad="SAME_LOWER")),
    "valid": lambda d: d.pooled(d.conv(d.conv(d.x, auto_pad="VALID"), 4, pads=[1, 1, 1, 1])),
    "patches": lambda d: d.pooled(d.conv(d.x, k=(4, 4), strides=[4, 4])),
    "shortcut": lambda d: d.pooled(
        d.op("Add", d.conv(d.x, pads=[1, 1, 1, 1], strides=[2, 2]), d.conv(d.x, k=(1, 1), strides=[2, 2]))
    ),
    "padded": lambda d: d.pooled(d.conv(d.op("Pad", d.conv(d.x), d.const([0, 0, 2, 1, 0, 0, 1, 3]), d.const(0.7)), 4)),
    "cropped": lambda d: d.pooled(
        d.op("Slice", d.conv(d.x), d.const([1, 0]), d.const([-2, 2**63 - 1]), d.const([2, 3]), d.const([2, 3]))
    ),
    "rows-and-back": rows_and_back,
    "cropped-by-shape": cropped_by_shape,
    "quantised": quantised,
    "dilated-average": lambda d: d.pooled(
        d.op("AveragePool", d.conv(d.x), kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 1, 1, 2])
    ),
    "dilated-average-ceil": lambda d: d.pooled(
        d.op(
            "AveragePool",
            d.conv(d.x),
            kernel_shape=[3, 3],
            dilations=[2, 2],
            strides=[3, 2],
            pads=[1, 1, 2, 2],
            ceil_mode=1,
            count_include_pad=1,
        )
    ),
    "best-of-channels-and-space": lambda d: d.ops("TopK", d.op("Flatten", d.x), d.const([7]), outputs=2, axis=1)[0],
    "lp-pool": lambda d: d.pooled(
        d.op("LpPool", d.conv(d.x), kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1], p=2)
    ),
    "global-max": lambda d: d.op("GlobalMaxPool", d.conv(d.x)),
    "global-lp": lambda d: d.op("GlobalLpPool", d.conv(d.x), p=2),
    "log-softmax": lambda d: d.reduce(
        "ReduceMax", d.op("LogSoftmax", positions(d, d.conv(d.x, pads=[1, 1, 1, 1]), 4), axis=2), [2], 0
    ),
    "top-k": lambda d: d.ops("TopK", positions(d, d.conv(d.x, pads=[1, 1, 1, 1]), 4), d.const([7]), outputs=2, axis=-1)[
        0
    ],
    "bottom-k": lambda d: d.ops("TopK", positions(d, d.x), d.const([5]), outputs=2, axis=2, largest=0)[0],
    "flatten": lambda d: d.op("Flatten", d.op("GlobalAveragePool", d.conv(d.x))),
    # Of numbers of one sign: the one mean of all of an image may lie near 0, where rounding is large beside it.
    "channels-and-space": lambda d: d.reduce("ReduceMean", d.op("Relu", d.conv(d.x)), [1, 2, 3], 0),
    **{f"{kind}, one axis after the other": in_turn(kind) for kind in ("ReduceMean", "ReduceSum", "ReduceMax")},
    **{kind: at_once(kind) for kind in sorted(REDUCES)},
}


LOOSE = {"ReduceProd": 100, "standard-deviation": 5, "second-order": 5, "ReduceLogSum": 5}
"""Where float32 itself is that much off, or a difference of like numbers is taken."""


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_exact(name: str, rng: np.random.Generator) -> None:
    model = Draft.model(d := Draft(rng), GRAPHS[name](d))
    assert worst(model, rng) <= BOUND * LOOSE.get(name, 1)


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_any_pooling_window_is_exact(kind: str, rng: np.random.Generator) -> None:
    """Kernels, strides, pads, ceil_mode, dilations, counted pads at random; two in a row, so that levels add up."""
    for _ in range(25):
        d = Draft(rng)
        x = d.x
        for _ in range(2):
            kernel = rng.integers(1, 5, 2)
            dilated = kind == "MaxPool" and rng.random() < 0.3  # without pads: a window that sees nothing else is −∞
            attributes = {
                "kernel_shape": kernel.tolist(),
                "strides": rng.integers(1, 4, 2).tolist(),
                "pads": [0 if dilated else int(rng.integers(0, k)) for k in (*kernel, *kernel)],
                "ceil_mode": int(rng.integers(2)),
            }
            if dilated:
                attributes["dilations"] = rng.integers(1, 4, 2).tolist()
            if kind == "AveragePool":
                attributes["count_include_pad"] = int(rng.integers(2))
            x = d.op(kind, x, **attributes)
        assert worst(d.model(d.pooled(x)), rng) <= BOUND, attributes


@pytest.mark.parametrize("opset", [11, 12, 13, 16, 17, 18, 19, 21])
def test_opsets(opset: int, rng: np.random.Generator) -> None:
    d = Draft(rng, opset)
    x = d.op("AveragePool", d.conv(d.x, pads=[1, 1, 1, 1]), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = d.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = d.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1)
    x = d.op("Mul", x, d.op("Sigmoid", d.reduce("ReduceMean", x, [2, 3])))
    assert worst(d.model(d.pooled(x)), rng) <= BOUND


def test_half_precision_means_do_not_overflow(rng: np.random.Generator) -> None:
    """A sum of 65 536 values of 2 is infinite in float16; their mean is 2."""
    d = Draft(rng, dtype=ir.DataType.FLOAT16)
    x = d.op("Add", d.op("Mul", d.x, d.const(0.01)), d.const(2.0))
    assert worst(d.model(d.reduce("ReduceMean", x, [2, 3], 0)), rng, largest=300) <= 2e-3  # one step of float16 is 1e-3


UNKNOWN: dict[str, tuple[Write, str]] = {
    "fixed Gemm": (
        lambda d: d.op("Gemm", d.op("Flatten", d.conv(d.x)), d.weights(400, 5)),
        "weights are of one map's size",
    ),
    "argmax": (lambda d: d.op("ArgMax", positions(d, d.x), axis=2, keepdims=0), "index of a position"),
    "auto_pad": (
        lambda d: d.pooled(d.conv(d.x, auto_pad="SAME_UPPER", strides=[2, 2])),
        "auto_pad SAME_UPPER with stride 2",
    ),
    "levels": (
        lambda d: d.pooled(d.op("Add", d.conv(d.x, pads=[1, 1, 1, 1]), d.conv(d.x, pads=[2, 1, 1, 1]))),
        "maps of different geometry meet",
    ),
    "row": (lambda d: d.pooled(d.op("Slice", d.x, d.const([0]), d.const([7]), d.const([2]))), "a fixed part"),
    "embedding": (lambda d: d.pooled(d.op("Add", d.x, d.weights(3, 8, 8))), "axes of different meaning"),
    "custom": (lambda d: d.pooled(d.op("CumSum", d.x, d.const(2))), "takes positions together"),
    "dilated auto_pad": (
        lambda d: d.pooled(d.op("MaxPool", d.x, kernel_shape=[3, 3], dilations=[2, 2], auto_pad="SAME_UPPER")),
        "auto_pad SAME_UPPER with dilation 2",
    ),
    "auto_pad of one tap": (
        lambda d: d.pooled(d.conv(d.x, k=(1, 1), auto_pad="SAME_UPPER", strides=[4, 4])),
        "auto_pad SAME_UPPER with stride 4",
    ),
    "neighbours": (
        lambda d: d.reduce("ReduceMax", d.op("LRN", d.op("Transpose", d.x, perm=[0, 2, 3, 1]), size=3), [1, 2], 0),
        "takes positions together",
    ),
    "channels, too": (lambda d: stacked(d, d.x, count_include_pad=0), "averages channels together with positions"),
    "one row": (
        lambda d: d.op("MatMul", d.op("Flatten", d.conv(d.x, out=1)), d.weights(1, 5)),
        "weights are of one map's size",
    ),
    "all axes": (lambda d: d.reduce("ReduceMean", d.x, []), "reduces over the images of a batch"),
    "bound": (
        lambda d: d.pooled(
            d.op(
                "Clip",
                d.x,
                None,
                d.op("Cast", d.op("Gather", d.op("Shape", d.x), d.const(2)), to=int(ir.DataType.FLOAT)),
            )
        ),
        "flows into it as a number",
    ),
    "unknown": (lambda d: d.pooled(d.op("DepthToSpace", d.conv(d.x), blocksize=2)), "DepthToSpace"),
}


def test_indices_that_are_an_output_are_not_followed(rng: np.random.Generator) -> None:
    d = Draft(rng)
    values, indices = d.ops("TopK", positions(d, d.x), d.const([2]), outputs=2, axis=2)
    model = d.model(values)
    indices.name = "indices"
    model.graph.outputs.append(indices)
    assert "index of a position" in obstacles(model)[0]


def test_operators_of_onnx_by_their_long_name(rng: np.random.Generator) -> None:
    model = Draft.model(d := Draft(rng), d.pooled(d.conv(d.x)))
    model.graph.opset_imports["ai.onnx"] = model.graph.opset_imports.pop("")
    assert worst(model, rng) <= BOUND


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_followed_says_why(name: str, rng: np.random.Generator) -> None:
    write, reason = UNKNOWN[name]
    found = obstacles(Draft.model(d := Draft(rng), write(d)))
    assert len(found) == 1
    assert reason in found[0]

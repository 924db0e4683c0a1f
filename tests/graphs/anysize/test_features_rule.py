"""Where features end, in graphs by hand: pooling is told from backbone, a card may name them, and none are refused with words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphs.anysize.cut import FEATURES, cut_features
from graphs.anysize.features import FeaturesError
from graphs.card import ModelCard, Preprocessing
from tests.claims import relative_error
from tests.graphs.anysize.parts import assert_two_parts_are_the_whole, run

CONSTANTS = {
    "tiny": np.float32(1e-6),
    "zero": np.float32(0),
    "six": np.float32(6),
    "three": np.float32(3),
    "both": np.array([2, 3], np.int64),
    "flat": np.array([0, 5, -1], np.int64),
    "ratio": np.array([4.0, 2.0, 3.0, 1.0, 0.5], np.float32).reshape(5, 1, 1),
    "sides": np.array([1, 2], np.int64),
    "one": np.array([1], np.int64),
    "second": np.array([2], np.int64),
    "third": np.array([3], np.int64),
    "nothing": np.array([], np.float32),
    "twice": np.array([1, 1, 2, 2], np.float32),
}


def node(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def network_of(nodes: list[Any], rng: np.random.Generator) -> ir.Model:
    """images → Conv 3×3, stride 2 → `c`, of 5 channels; the nodes go on from it to `m` (N,5); then a classifier."""
    weights = {
        "conv": rng.normal(size=(5, 3, 3, 3)).astype(np.float32),
        "gemm": rng.normal(size=(5, 4)).astype(np.float32),
        "score": rng.normal(size=(1, 5, 1, 1)).astype(np.float32),
        "line": rng.normal(size=(1, 5)).astype(np.float32),
        **CONSTANTS,
    }
    graph = helper.make_graph(
        [
            node("Conv", "images conv", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
            *nodes,
            node("MatMul", "m gemm", "logits"),
        ],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


MEAN = node("ReduceMean", "y both", "m", keepdims=0)
RELU = node("Relu", "c", "r")
POOLS: dict[str, tuple[list[Any], str, Callable[[np.ndarray], np.ndarray] | None]] = {
    "timm's GeM behind a ReLU": (
        [RELU, node("Clip", "r tiny", "k"), node("Pow", "k three", "y"), MEAN],
        "r",
        None,
    ),
    "GeM's floor in place of a ReLU": (
        [node("Clip", "c tiny", "k"), node("Pow", "k three", "y"), MEAN],
        "c",
        lambda c: np.maximum(c, 0),
    ),
    "GeM's floor in place of a ReLU6": (
        [node("Clip", "c tiny six", "k"), node("Pow", "k three", "y"), MEAN],
        "c",
        lambda c: np.clip(c, 0, 6),
    ),
    "a floor as a maximum, behind SiLU": (
        [
            node("Sigmoid", "c", "s"),
            node("Mul", "c s", "r"),
            node("Max", "r tiny", "k"),
            node("Pow", "k three", "y"),
            MEAN,
        ],
        "r",
        None,
    ),
    "a ReLU6 belongs to the backbone": ([node("Clip", "c zero six", "y"), MEAN], "y", None),
    "so does a gate that is not of sum 1": (
        [RELU, node("Conv", "r score", "s"), node("Sigmoid", "s", "g"), node("Mul", "r g", "y"), MEAN],
        "y",
        None,
    ),
    "squares": ([RELU, node("Mul", "r r", "y"), MEAN], "r", None),
    "magnitudes": ([node("Abs", "c", "y"), MEAN], "c", None),
    "log-sum-exp of scaled features": (
        [RELU, node("Mul", "r ratio", "z"), node("ReduceLogSumExp", "z both", "m", keepdims=0)],
        "r",
        None,
    ),
    "exponentials of scaled features": (
        [
            RELU,
            node("Div", "r ratio", "z"),
            node("Exp", "z", "y"),
            node("ReduceMean", "y both", "e", keepdims=0),
            node("Log", "e", "m"),
        ],
        "r",
        None,
    ),
    "a scale of the backbone's": ([RELU, node("Mul", "r ratio", "y"), MEAN], "y", None),
    "channels last": (
        [RELU, node("Transpose", "r", "y", perm=[0, 2, 3, 1]), node("ReduceMean", "y sides", "m", keepdims=0)],
        "y",
        None,
    ),
    "a softmax of scores, flat, by MatMul": (
        [
            RELU,
            node("Reshape", "r flat", "x"),
            node("MatMul", "line x", "s"),
            node("Softmax", "s", "a", axis=-1),
            node("Transpose", "x", "t", perm=[0, 2, 1]),
            node("MatMul", "a t", "p"),
            node("Squeeze", "p one", "m"),
        ],
        "r",
        None,
    ),
    "a softmax of each channel": (
        [
            RELU,
            node("Reshape", "r flat", "x"),
            node("Softmax", "x", "a", axis=-1),
            node("Shape", "r", "shape"),
            node("Reshape", "a shape", "w"),
            node("Mul", "w r", "y"),
            node("ReduceSum", "y both", "m", keepdims=0),
        ],
        "r",
        None,
    ),
}


@pytest.mark.parametrize(("nodes", "value", "activation"), POOLS.values(), ids=POOLS)
def test_rule_tells_pooling_from_backbone(
    nodes: list[Any], value: str, activation: Callable[[np.ndarray], np.ndarray] | None, rng: np.random.Generator
) -> None:
    model = network_of(nodes, rng)
    cut = cut_features(model, ModelCard())
    assert cut.value == value
    assert cut.weighted == any(one.op_type == "MatMul" for one in nodes)
    x = rng.normal(size=(2, 3, 11, 14)).astype(np.float32)
    features = assert_two_parts_are_the_whole(model, cut, "images", x)
    assert features.shape == (2, 5, 6, 7)
    if activation is not None:
        shown = model.clone()
        (c,) = (out for one in shown.graph for out in one.outputs if out.name == "c")
        shown.graph.outputs.append(c)
        c.type = ir.TensorType(ir.DataType.FLOAT)
        np.testing.assert_array_equal(features, activation(run(shown, "images", x)["c"]))


def test_float16_networks_give_float32_features(rng: np.random.Generator) -> None:
    model = network_of([RELU, node("Clip", "r tiny", "y"), MEAN], rng)
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.maximum(array, -9).astype(np.float16), tensor.name))
    for one in (*proto.graph.input, *proto.graph.output):
        one.type.tensor_type.elem_type = TensorProto.FLOAT16
    half = ir.from_proto(proto)
    cut = cut_features(half, ModelCard())
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float16)
    features = run(cut.trunk, "images", x)[FEATURES]
    assert features.dtype == np.float32
    assert relative_error(run(cut.head, FEATURES, features)["logits"], run(half, "images", x)["logits"]) <= 2e-2


def test_card_names_the_features(rng: np.random.Generator) -> None:
    nodes = [RELU, node("Mul", "r ratio", "y"), MEAN]
    model = network_of(nodes, rng)
    assert cut_features(model, ModelCard(features="c")).value == "c"
    assert_two_parts_are_the_whole(
        model, cut_features(model, ModelCard(features="r")), "images", rng.normal(size=(1, 3, 4, 4)).astype(np.float32)
    )


def test_wrong_name_is_refused_with_the_reason(rng: np.random.Generator) -> None:
    model = network_of([RELU, node("Sigmoid", "c", "s"), node("Mul", "r s", "y"), MEAN], rng)
    for name, says in {
        "relu": "no value 'relu'; the nearest maps are",
        "m": r"expected a map \(N,C,h,w\), 'm' has the axes \(batch, 5\)",
        "s": "not every way to the outputs leads through 's'; 'r' gets past it",
    }.items():
        with pytest.raises(FeaturesError, match=says):
            cut_features(model, ModelCard(features=name))


def test_network_without_features_is_refused_with_the_reason(rng: np.random.Generator) -> None:
    two_ways = [RELU, node("ReduceMean", "r both", "a", keepdims=0), node("ReduceMax", "images both", "b", keepdims=0)]
    two_ways += [node("ReduceMax", "b one", "d", keepdims=1), node("Add", "a d", "m")]
    with pytest.raises(FeaturesError, match="there is no map"):
        cut_features(network_of(two_ways, rng), ModelCard())
    resized = [node("Resize", "c nothing twice", "y", mode="nearest"), MEAN]
    assert cut_features(network_of(resized, rng), ModelCard()).value == "c"


def test_scaled_pixels_are_no_features(rng: np.random.Generator) -> None:
    """A Resize, which the compiler cannot follow, hides all maps behind it: the pixels before it are not taken for them."""
    model = network_of([RELU, node("ReduceMean", "r both", "m", keepdims=0)], rng)
    pixels, conv = model.graph.inputs[0], model.graph[0]
    three, twice = model.graph.initializers["three"], model.graph.initializers["twice"]
    scaled = ir.node("Mul", [pixels, three])
    resized = ir.node("Resize", [scaled.outputs[0], None, ir.val("scales")])
    twice32 = ir.node("Cast", [twice], attributes={"to": ir.DataType.FLOAT.value})
    resized.replace_input_with(2, twice32.outputs[0])
    conv.replace_input_with(0, resized.outputs[0])
    model.graph.insert_before(conv, [scaled, twice32, resized])
    with pytest.raises(FeaturesError, match=r"behind its first weights .* the compiler could not follow .*Resize"):
        cut_features(model, ModelCard())


def test_a_head_that_asks_for_the_images_own_size_is_refused(rng: np.random.Generator) -> None:
    nodes = [
        RELU,
        node("Shape", "images", "shape"),
        node("Slice", "shape second third", "height"),
        node("Cast", "height", "number", to=TensorProto.FLOAT),
        node("ReduceSum", "r both", "total", keepdims=0),
        node("Div", "total number", "m"),
    ]
    with pytest.raises(FeaturesError, match="computed from the image's size"):
        cut_features(network_of(nodes, rng), ModelCard())


def test_networks_that_take_channels_last_are_cut_too(rng: np.random.Generator) -> None:
    model = network_of([RELU, node("Clip", "r tiny", "y"), MEAN], rng)
    proto = ir.to_proto(model)
    proto.graph.node.insert(0, node("Transpose", "pictures", "images", perm=[0, 3, 1, 2]))
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", "h", "w", 3]))
    card = ModelCard(preprocessing=Preprocessing(layout="NHWC"))
    last = ir.from_proto(proto)
    x = rng.normal(size=(2, 10, 7, 3)).astype(np.float32)
    assert assert_two_parts_are_the_whole(last, cut_features(last, card), "pictures", x).shape == (2, 5, 5, 4)

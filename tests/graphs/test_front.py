"""The front: pixels in, the network's own answer out, against the arithmetic in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from graphs.front import PIXELS, FrontError, Geometry, attach_front
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card


def run(model: ir.Model, pixels: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return np.asarray(ReferenceEvaluator(proto).run(None, {PIXELS: pixels})[0])  # type: ignore[index]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 40)])
def test_front_computes_the_cards_preprocessing(
    layout: str, channels: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    """Relative error ≤ 1e-5 against float64: the arithmetic is float32."""
    count = 1 if channels == "L" else 3
    given = card(channels)
    given = given.model_copy(update={"preprocessing": given.preprocessing.model_copy(update={"layout": layout})})
    network = TinyClassifier.random(int(rng.integers(1000)), channels=count)
    model = ir.from_proto(network.to_onnx(given))
    assert attach_front(model, given) == Geometry(None, None, None)
    pixels = rng.integers(0, 256, (3, *size, count), np.uint8)
    expected = np.stack([network.logits(image, given.preprocessing) for image in pixels])
    assert relative_error(run(model, pixels), expected) <= 1e-5


def test_float16_network_gets_float16(rng: np.random.Generator) -> None:
    network, given = TinyClassifier.random(3), card()
    model = ir.from_proto(network.to_onnx(given, dtype=TensorProto.FLOAT16))
    attach_front(model, given)
    pixels = rng.integers(0, 256, (2, 6, 7, 3), np.uint8)
    expected = np.stack([network.logits(image, given.preprocessing) for image in pixels])
    assert relative_error(run(model, pixels), expected) <= 2e-2


def test_uint8_input_only_changes_its_layout() -> None:
    body = "<int64[2] axes = {2,3}> { f = Cast<to=1>(x) y = ReduceMax<keepdims=0>(f, axes) }"
    graph = f"g (uint8[n,3,h,w] x) => (float[n,3] y) {body}"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}')
    model = ir.from_proto(proto)
    attach_front(model, card())
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert run(model, pixels).tolist() == [[21, 22, 23]]


def test_sizes_that_the_graph_fixes_are_reported() -> None:
    model = ir.from_proto(TinyClassifier.random(0).to_onnx(card(), size=(24, 32), batch=1))
    assert attach_front(model, card()) == Geometry(1, 24, 32)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"input": "pictures"}, "expected one input named 'pictures'"),
        ({"preprocessing": {"channels": "L"}}, "has 3 channels"),
        ({"preprocessing": {"layout": "NHWC"}}, "layout NHWC"),
    ],
)
def test_card_that_does_not_fit_the_graph_is_refused(members: dict[str, object], says: str) -> None:
    model = ir.from_proto(TinyClassifier.random(0).to_onnx(card(), size=(24, 32)))
    with pytest.raises(FrontError, match=says):
        attach_front(model, card().model_validate({"labels": ["a"], **members}))


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("(float[n,3,h,w] a, float[n] b) => (float[n,3,h,w] y) { y = Identity(a) }", "the graph has the inputs"),
        ("(float[n,3] a) => (float[n,3] y) { y = Identity(a) }", "expected rank 4"),
        ("(int64[n,3,h,w] a) => (int64[n,3,h,w] y) { y = Identity(a) }", "expected uint8, float16 or float32"),
    ],
)
def test_graph_that_takes_no_image_is_refused(graph: str, says: str) -> None:
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {graph}'))
    with pytest.raises(FrontError, match=says):
        attach_front(model, card())

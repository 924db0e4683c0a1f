"""Graphs as bytes: the same message as protobuf's own writer gives, read by protobuf and by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from service.runtime.session import Session
from service.runtime.wire import to_bytes
from tests.tiny import TinyClassifier, card


@pytest.mark.parametrize("classes", [1, 7, 40, 5000])  # lengths of one, two and three bytes
def test_bytes_are_the_same_message(classes: int) -> None:
    proto = TinyClassifier.random(classes, classes=classes).to_onnx(card(labels=[]))
    assert onnx.load_from_string(to_bytes(ir.from_proto(proto))) == ir.to_proto(ir.from_proto(proto))


def test_graph_without_weights_is_whole() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])
    answer = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [value], [answer])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    assert onnx.load_from_string(to_bytes(ir.from_proto(model))).graph.node[0].op_type == "Neg"


def test_onnx_runtime_reads_them(rng: np.random.Generator) -> None:
    proto = TinyClassifier.random(3).to_onnx(card())
    x = rng.random((2, 3, 5, 6), np.float32)
    found, expected = (
        Session(data, provider="cpu").run({"images": x})[0]
        for data in (to_bytes(ir.from_proto(proto)), proto.SerializeToString())
    )
    assert (found == expected).all()

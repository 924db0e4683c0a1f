"""Sessions: they run where they were asked to, or say so."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from service.runtime.session import ProviderError, Session, resolve_provider
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card

CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_session_runs_the_graph(rng: np.random.Generator) -> None:
    """Relative error ≤ 1e-5 against float64."""
    network, given = TinyClassifier.random(4), card(preprocessing={"scale": 1.0})
    session = Session(network.to_onnx(given).SerializeToString(), provider="cpu")
    assert (session.provider, session.device, list(session.outputs)) == ("cpu", "cpu", ["logits"])
    image = rng.integers(0, 256, (9, 5, 3), np.uint8)
    (logits,) = session.run({"images": image.transpose(2, 0, 1)[None].astype(np.float32)})
    assert relative_error(logits[0], network.logits(image, given.preprocessing)) <= 1e-5


def test_graph_that_onnxruntime_refuses_is_said_why() -> None:
    model = TinyClassifier.random(0).to_onnx(None)
    model.graph.node[1].op_type = "Convolute"
    with pytest.raises(ValueError, match=r"ONNX Runtime refuses the graph: .*Convolute"):
        Session(model.SerializeToString(), provider="cpu")


def test_auto_is_the_cpu_where_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.session._DEVICE_NODES", ("/dev/there-is-no-such-device",))
    assert resolve_provider("auto") == "cpu"
    assert resolve_provider("cpu") == "cpu"


@pytest.mark.skipif(CUDA, reason="this onnxruntime has CUDA")
def test_cuda_asked_for_and_not_there_is_an_error() -> None:
    with pytest.raises(ProviderError, match="provider=cuda was asked for, but this onnxruntime has only"):
        resolve_provider("cuda")


@pytest.mark.skipif(CUDA, reason="this onnxruntime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_session_that_fell_back_to_the_cpu_is_an_error() -> None:
    with pytest.raises(ProviderError, match="runs this model on"):
        Session(TinyClassifier.random(0).to_onnx(None).SerializeToString(), provider="cuda")


@pytest.mark.gpu
def test_cuda_session_runs_on_cuda_and_agrees_with_float64(rng: np.random.Generator) -> None:
    network, given = TinyClassifier.random(4), card(preprocessing={"scale": 1 / 255})
    session = Session(network.to_onnx(given).SerializeToString(), provider="cuda")
    assert session.device == "cuda:0"
    image = rng.integers(0, 256, (33, 71, 3), np.uint8)
    (logits,) = session.run({"images": image.transpose(2, 0, 1)[None].astype(np.float32) / 255})
    assert relative_error(logits[0], network.logits(image, given.preprocessing)) <= 1e-5


@pytest.mark.gpu
def test_node_without_a_cuda_kernel_is_an_error() -> None:
    """MaxPool has none from opset 22 on."""
    from onnx import TensorProto, helper

    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    with pytest.raises(ProviderError, match=r"no CUDA kernel .* \(MaxPool\)"):
        Session(model.SerializeToString(), provider="cuda")

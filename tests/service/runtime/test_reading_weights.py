"""Reading weights in files beside the graph: no others than the model's own, and no more of them than is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.runtime.reading import read_model
from tests.service.runtime.version_folder import good, refused, save_external, saved
from tests.tiny import TinyClassifier, card


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return saved(tmp_path)


def say(key: str, value: str) -> Callable[[onnx.TensorProto], None]:
    def change(tensor: onnx.TensorProto) -> None:
        kept = [entry for entry in tensor.external_data if entry.key != key]
        del tensor.external_data[:]
        tensor.external_data.extend([*kept, onnx.StringStringEntryProto(key=key, value=value)])

    return change


def test_weights_in_a_file_beside_are_read(version: Path) -> None:
    (version / "data").mkdir()
    path = save_external(version, say("location", "data/weights.bin"))
    os.link(version / "weights.bin", version / "data" / "weights.bin")
    assert "2 hard links" in refused(version)
    (version / "data" / "weights.bin").unlink()
    (version / "data" / "weights.bin").write_bytes((version / "weights.bin").read_bytes())
    graph, _ = read_model(path)
    value = graph.graph.initializers["conv"].const_value
    assert value is not None
    np.testing.assert_array_equal(value.numpy(), TinyClassifier.random(0).conv)
    (version / "weights.bin").unlink()
    (version / "data" / "weights.bin").unlink()
    np.testing.assert_array_equal(value.numpy(), TinyClassifier.random(0).conv)  # they are in memory


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("/etc/passwd", "expected a file in the model's folder"),
        ("../../../outside/secret", "expected a file in the model's folder"),
        ("../2/weights.bin", "expected a file in the model's folder"),
        ("data/../../weights.bin", "expected a file in the model's folder"),
        ("..\\weights.bin", "expected a file in the model's folder"),
        ("weights.bin\0", "expected a file in the model's folder"),
        ("", "expected a file in the model's folder"),
        (".", "expected a regular file, got a folder"),
        ("nowhere.bin", "cannot be read"),
        ("leaves.bin", "a link that leaves it"),
        ("up/weights.bin", "a link that leaves it"),
        ("pipe", "got a pipe"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_weights_elsewhere_are_refused(version: Path, tmp_path: Path, location: str, says: str) -> None:
    (version / "leaves.bin").symlink_to(tmp_path / "outside" / "secret")
    (version / "up").symlink_to("..")
    (version.parent / "weights.bin").write_bytes(bytes(10**4))
    os.mkfifo(version / "pipe")
    save_external(version, say("location", location))
    reason = refused(version)
    assert "weights 'conv'" in reason
    assert says in reason
    good(version)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("offset", "1000000", "expected bytes 1000000 to 1000432 of weights.bin"),
        ("offset", str(2**63), "expected bytes"),
        ("offset", "1" * 100, "expected bytes"),
        ("offset", "-4", "must be non-negative"),
        ("offset", "four", "invalid literal"),
        ("length", str(2**40), "takes 432 bytes, it has a length of 1099511627776"),
        ("length", "4", "takes 432 bytes, it has a length of 4"),
        ("length", "-1", "must be non-negative"),
        ("length", "0", "takes 432 bytes, it has a length of 0"),
    ],
)
def test_bytes_that_the_file_has_not_are_refused(version: Path, key: str, value: str, says: str) -> None:
    save_external(version, say(key, value))
    assert says in refused(version)
    good(version)


@pytest.mark.parametrize("dims", [[2**40], [2**62, 4], [-1], [4, 3, 3, 4]])
def test_shape_that_does_not_fit_its_bytes_is_refused_before_room_is_made(version: Path, dims: list[int]) -> None:
    def change(tensor: onnx.TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(dims)

    save_external(version, change)
    assert "weights 'conv'" in refused(version)
    good(version)


@pytest.mark.parametrize("data_type", [0, onnx.TensorProto.STRING, onnx.TensorProto.INT4, onnx.TensorProto.DOUBLE])
def test_weights_of_another_type_are_refused(version: Path, data_type: int) -> None:
    def change(tensor: onnx.TensorProto) -> None:
        tensor.data_type = data_type

    save_external(version, change)
    assert "weights 'conv'" in refused(version)
    good(version)


def test_weights_cut_short_are_refused(version: Path) -> None:
    save_external(version)
    with (version / "weights.bin").open("r+b") as file:
        file.truncate(100)
    assert "of weights.bin, it has 100" in refused(version)
    good(version)


@pytest.mark.parametrize("below", [False, True])
def test_constant_that_lies_in_a_file_is_refused(version: Path, below: bool) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "away")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../outside/secret")
    constant = helper.make_node("Constant", [], ["k"], "the_constant", value=tensor)
    model = TinyClassifier.random(0).to_onnx(card())
    if below:
        branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("k", 1, [3])])
        yes = numpy_helper.from_array(np.array(True), "yes")
        model.graph.initializer.append(yes)
        constant = helper.make_node("If", ["yes"], ["unused"], then_branch=branch, else_branch=branch)
    model.graph.node.append(constant)
    (version / "model.onnx").write_bytes(model.SerializeToString())
    assert "node the_constant (Constant): expected its attribute value in the model's file" in refused(version)
    good(version)

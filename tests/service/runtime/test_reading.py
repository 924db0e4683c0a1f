"""Reading a model: what is refused before anything opens it, each followed by a good load."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.runtime.broken import BrokenModel
from service.runtime.reading import read_model
from tests.tiny import LABELS, TinyClassifier, card

SECRET = "the machine's own file"


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """The folder of a good version; outside of its model's folder lies a file that nobody may read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    return TinyClassifier.random(0).save(tmp_path / "models" / "net" / "1", card()).parent


def refused(version: Path) -> str:
    """Read a version that must be refused. Returns why; host's paths and files' contents are not in it."""
    with pytest.raises(BrokenModel) as caught:
        read_model(version / "model.onnx")
    reason = caught.value.reason
    assert str(version.parents[2]) not in reason
    assert SECRET not in str(caught.value)
    assert str(version) in str(caught.value)  # the log has the path
    assert len(reason) < 1000
    return reason


def good(version: Path) -> None:
    """The same folder with good files in it is read."""
    path = version / "model.onnx"
    if os.path.lexists(path):
        path.unlink()
    (version / "model.json").unlink(missing_ok=True)
    TinyClassifier.random(0).save(version, card())
    assert read_model(path)[1].labels == LABELS


def test_link_that_leaves_the_folder_is_refused(version: Path, tmp_path: Path) -> None:
    path = version / "model.onnx"
    outside = path.rename(tmp_path / "outside" / "model.onnx")
    path.symlink_to(outside)
    assert refused(version) == "1/model.onnx: expected a file in its model's folder, got a link that leaves it"
    path.unlink()
    path.symlink_to(Path("..", "..", "..", "outside", "model.onnx"))
    assert "a link that leaves it" in refused(version)
    good(version)


def test_versions_folder_that_is_a_link_outside_is_refused(version: Path, tmp_path: Path) -> None:
    moved = version.rename(tmp_path / "outside" / "1")
    version.symlink_to(moved, target_is_directory=True)
    assert "a link that leaves it" in refused(version)
    version.unlink()
    good(version)


def test_folder_above_a_link_is_refused(version: Path, tmp_path: Path) -> None:
    """`1/model.onnx` is a file, and lies behind a link that leaves."""
    deep = tmp_path / "outside" / "deep"
    deep.mkdir()
    (version / "model.onnx").rename(deep / "model.onnx")
    (version / "model.onnx").symlink_to("other/model.onnx")
    (version / "other").symlink_to(deep, target_is_directory=True)
    assert "a link that leaves it" in refused(version)
    good(version)


def test_links_inside_the_folder_are_followed(version: Path) -> None:
    """As in folders that Kubernetes mounts."""
    data = version.parent / "..data"
    data.mkdir()
    (version / "model.onnx").rename(data / "graph")
    (version / "model.onnx").symlink_to(Path("..", "..data", "graph"))
    assert read_model(version / "model.onnx")[1].labels == LABELS


def test_models_folder_can_be_a_link(version: Path, tmp_path: Path) -> None:
    """Who runs the service has made that one."""
    link = tmp_path / "models" / "alias"
    link.symlink_to(version.parent, target_is_directory=True)
    assert read_model(link / "1" / "model.onnx")[1].labels == LABELS


@pytest.mark.parametrize("target", ["nowhere", "model.onnx", "../../../../../../../../../../nowhere"])
def test_link_to_nothing_or_to_itself_is_refused(version: Path, target: str) -> None:
    (version / "model.onnx").unlink()
    (version / "model.onnx").symlink_to(target)
    assert "got a link that cannot be read" in refused(version)
    good(version)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name may have 107 bytes
        try:
            made.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    ("make", "kind"), [(make_pipe, "a pipe"), (make_socket, "a socket"), (Path.mkdir, "a folder")], ids=str
)
@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    version: Path, make: Callable[[Path], None], kind: str, name: str
) -> None:
    (version / name).unlink(missing_ok=True)
    make(version / name)
    assert refused(version) == f"1/{name}: expected a regular file, got {kind}"
    (version / name).rmdir() if kind == "a folder" else (version / name).unlink()
    good(version)


def test_device_is_refused(version: Path) -> None:
    (version / "model.onnx").unlink()
    (version / "model.onnx").symlink_to("/dev/zero")
    assert "a link that leaves it" in refused(version)
    good(version)


def test_card_behind_a_link_that_leaves_is_refused(version: Path, tmp_path: Path) -> None:
    (version / "model.json").symlink_to(tmp_path / "outside" / "secret")
    assert refused(version) == "1/model.json: expected a file in its model's folder, got a link that leaves it"
    good(version)


def test_card_that_is_not_valid_is_not_repeated(version: Path) -> None:
    (version / "model.json").write_text('{"labels": ["' + "x" * 10_000 + '"], "min_height": -1}')
    assert "min_height" in refused(version)
    (version / "model.json").write_text('{"labels": "' + "x" * 10_000)
    assert "model.json" in refused(version)
    good(version)


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x08\x0a", os.urandom(1000), b"\x3a\xff\xff\xff\xff\x0f"])
def test_file_that_is_no_graph_is_refused(version: Path, junk: bytes) -> None:
    (version / "model.onnx").write_bytes(junk)
    refused(version)
    good(version)


def test_file_cut_short_is_refused(version: Path) -> None:
    data = (version / "model.onnx").read_bytes()
    (version / "model.onnx").write_bytes(data[: len(data) // 2])
    assert "not a readable ONNX file" in refused(version)
    good(version)


def test_file_larger_than_protobuf_reads_is_refused_by_its_size(version: Path) -> None:
    with (version / "model.onnx").open("wb") as file:
        file.truncate(2**31)  # a hole: takes no room
    assert "expected at most 2147483647 bytes, it has 2147483648" in refused(version)
    good(version)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with up to five bytes or short pieces of it changed, taken away or put in."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        place, length = int(rng.integers(len(changed))), int(rng.integers(1, 10))
        changed[place : place + length * int(rng.integers(2))] = rng.bytes(length * int(rng.integers(2)))
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_damage_is_a_broken_model_or_none(version: Path, rng: np.random.Generator, beside: bool) -> None:
    path = save_external(version) if beside else version / "model.onnx"
    data, reasons = path.read_bytes(), []
    for _ in range(300):
        path.write_bytes(damaged(data, rng))
        try:
            read_model(path)
        except BrokenModel as error:
            reasons.append(error.reason)
    assert len(reasons) > 100
    assert all(str(version) not in reason and len(reason) < 1500 for reason in reasons)
    good(version)


# Weights in files beside.


def save_external(version: Path, change: Callable[[onnx.TensorProto], None] = lambda tensor: None) -> Path:
    """Write a version whose weights lie in weights.bin, after something was done to what is said of `conv`."""
    model = TinyClassifier.random(0).to_onnx(card())
    path = version / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    change(next(tensor for tensor in model.graph.initializer if tensor.name == "conv"))
    path.write_bytes(model.SerializeToString())
    return path


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


# Operators.


def with_node(version: Path, *nodes: onnx.NodeProto, **rest: object) -> None:
    model = TinyClassifier.random(0).to_onnx(card())
    model.graph.node.extend(nodes)
    for domain, opset in rest.get("opsets", {}).items():  # type: ignore[attr-defined]
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, opset))
        else:
            model.opset_import[0].version = opset
    model.functions.extend(rest.get("functions", []))  # type: ignore[arg-type]
    (version / "model.onnx").write_bytes(model.SerializeToString())


def test_operators_that_nobody_knows_are_named(version: Path) -> None:
    nodes = [helper.make_node(f"Unheard{i}", ["images"], [f"u{i}"]) for i in range(7)]
    with_node(version, *nodes)
    reason = refused(version)
    assert reason.startswith("model.onnx: ONNX Runtime has no ai.onnx::Unheard0 of opset 20; no ai.onnx::Unheard1")
    assert reason.endswith("and 2 more")
    good(version)


@pytest.mark.parametrize(
    ("node", "opsets", "says"),
    [
        (helper.make_node("Relu", ["images"], ["u"], domain="org.nobody"), {"org.nobody": 1}, "no org.nobody::Relu"),
        (helper.make_node("Relu", ["images"], ["u"], domain="org.nobody"), {}, "no org.nobody::Relu"),
        (helper.make_node("Gelu", ["images"], ["u"]), {"": 19}, "no ai.onnx::Gelu of opset 19"),
        (helper.make_node("Upsample", ["images"], ["u"]), {"": 20}, "no ai.onnx::Upsample of opset 20"),
        (helper.make_node("Relu", ["images"], ["u"]), {"": 1000}, "Relu of opset 1000 (it has opsets up to"),
    ],
    ids=["domain", "domain without import", "too new", "taken away", "opset of the future"],
)
def test_operator_of_another_domain_or_opset_is_refused(
    version: Path, node: onnx.NodeProto, opsets: dict[str, int], says: str
) -> None:
    with_node(version, node, opsets=opsets)
    assert says in refused(version)
    good(version)


def test_operators_inside_branches_and_functions_are_checked(version: Path) -> None:
    inner = helper.make_node("Unheard", [], ["k"])
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("k", 1, [3])])
    with_node(version, helper.make_node("If", ["axes"], ["u"], then_branch=branch, else_branch=branch))
    assert "no ai.onnx::Unheard of opset 20" in refused(version)
    call = helper.make_node("Mine", ["images"], ["u"], domain="own")
    bad = helper.make_function(
        "own", "Mine", ["x"], ["y"], [helper.make_node("Unheard", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    with_node(version, call, opsets={"own": 1}, functions=[bad])
    assert "no ai.onnx::Unheard of opset 18" in refused(version)
    good(version)


def test_function_of_the_models_own_is_known(version: Path) -> None:
    call = helper.make_node("Mine", ["images"], ["u"], domain="own")
    relu = helper.make_function(
        "own", "Mine", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    with_node(version, call, opsets={"own": 1}, functions=[relu])
    read_model(version / "model.onnx")


def test_what_onnx_runtime_adds_is_known(version: Path) -> None:
    with_node(version, helper.make_node("Gelu", ["images"], ["u"], domain="com.microsoft"), opsets={"com.microsoft": 1})
    read_model(version / "model.onnx")

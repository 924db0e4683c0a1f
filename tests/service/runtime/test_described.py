"""Models that have no card and a config.pbtxt: what is made of it, and that they answer as their networks do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.runtime import described
from service.runtime.broken import BrokenModel
from service.runtime.configuration import read_configuration
from service.runtime.reading import read_model
from service.runtime.session import Session
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card
from tests.triton import BATCHED, DENSENET, LABELS, Net, write_densenet, write_resnet


def load(own: Path, file: str = "1/model.onnx") -> tuple[onnx.ModelProto, object]:
    import onnx_ir as ir

    graph, its = read_model(own / file, read_configuration(own))
    return ir.to_proto(graph), its


def refused(own: Path, file: str = "1/model.onnx") -> str:
    with pytest.raises(BrokenModel) as caught:
        read_model(own / file, read_configuration(own))
    assert str(own.parent) not in caught.value.reason
    return caught.value.reason


def change(own: Path, old: str, new: str) -> None:
    path = own / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_quick_starts_model_gets_a_card_and_flat_scores(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    net = Net.random(rng)
    described._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        model, its = load(write_densenet(tmp_path, net))
    assert "model densenet_onnx: has no card" in caplog.text
    assert its.labels == LABELS
    assert (its.input, its.output, its.activation) == ("data_0", "fc6_1", "softmax")
    assert (its.preprocessing.channels, its.preprocessing.layout) == ("RGB", "NCHW")
    assert its.preprocessing.scale == 1 / 255
    x = rng.normal(size=(1, 3, 32, 32)).astype(np.float32)
    session = Session(model.SerializeToString(), provider="cpu", threads=1)
    assert session.outputs == ["fc6_1"]
    (scores,) = session.run({"data_0": x})
    assert scores.shape == (1, 5)
    assert relative_error(scores[0], net.logits(x[0])) < 1e-5


def test_versions_of_one_configuration_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    nets = {"1": Net.random(rng), "3": Net.random(rng)}
    own = write_resnet(tmp_path, nets)
    x = rng.normal(size=(2, 3, 17, 23)).astype(np.float32)
    for version, net in nets.items():
        model, its = load(own, f"{version}/resnet50.onnx")
        assert its.labels == LABELS
        (scores,) = Session(model.SerializeToString(), provider="cpu", threads=1).run({"input": x})
        assert relative_error(scores, np.stack([net.logits(one) for one in x])) < 1e-5


def test_card_comes_before_the_configuration(tmp_path: Path, rng: np.random.Generator) -> None:
    own = write_densenet(tmp_path, Net.random(rng))
    (own / "1" / "model.json").write_text(card(labels=["a", "b", "c", "d", "e"], output="fc6_1").model_dump_json())
    assert load(own)[1].labels == ("a", "b", "c", "d", "e")
    (own / "1" / "model.json").unlink()
    TinyClassifier.random(0).save(own / "1", card())
    assert load(own)[1] == card()


def test_scores_that_are_probabilities_are_taken_as_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    own = write_densenet(tmp_path, Net.random(rng))
    model = Net.random(rng).to_onnx("data_0", "fc6_1", [1, 3, 32, 32], softmax=True)
    onnx.save(model, own / "1" / "model.onnx")
    assert load(own)[1].activation == "none"


@pytest.mark.parametrize(
    ("shape", "said", "expected"),
    [
        (["n", "h", "w", 3], "dims: [ -1, -1, 3 ]", ("RGB", "NHWC")),
        (["n", "h", "w", 1], "dims: [ -1, -1, 1 ]", ("L", "NHWC")),
        (["n", 1, "h", "w"], "dims: [ 1, -1, -1 ]", ("L", "NCHW")),
        (["n", "c", "h", "w"], "dims: [ -1, -1, -1 ]", ("RGB", "NCHW")),
        (["n", "a", "b", "c"], "format: FORMAT_NHWC dims: [ 8, 8, 1 ]", ("L", "NHWC")),
        (["n", "a", "b", "c"], "dims: [ 8, 8, 3 ]", ("RGB", "NHWC")),
    ],
)
def test_layout_and_channels_are_those_of_the_format_or_of_the_shape(
    tmp_path: Path, rng: np.random.Generator, shape: list[int | str], said: str, expected: tuple[str, str]
) -> None:
    own = write_resnet(tmp_path, {"1": Net.random(rng)})
    change(own, "dims: [ 3, -1, -1 ]", said)
    onnx.save(Net.random(rng).to_onnx("input", "output", shape, flat=True), own / "1" / "resnet50.onnx")
    preprocessing = load(own, "1/resnet50.onnx")[1].preprocessing
    assert (preprocessing.channels, preprocessing.layout) == expected


def test_missing_inputs_and_outputs_are_those_of_the_graph(tmp_path: Path, rng: np.random.Generator) -> None:
    """As with Triton, which finds them out."""
    own = write_resnet(tmp_path, {"1": Net.random(rng)})
    (own / "config.pbtxt").write_text(
        'backend: "onnxruntime" max_batch_size: 8 default_model_filename: "resnet50.onnx"'
    )
    its = load(own, "1/resnet50.onnx")[1]
    assert (its.output, its.labels) == ("output", ())


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        (["ant", "bee"], ("ant", "bee", "2", "3", "4")),
        ([*LABELS, "fox", "gnu"], LABELS),
        (["  ant ", "", "cat", "dog", "elk", "", ""], ("ant", "", "cat", "dog", "elk")),
    ],
    ids=["too few", "too many", "blank"],
)
def test_line_of_the_labels_names_the_class_of_its_index(
    tmp_path: Path, rng: np.random.Generator, lines: list[str], labels: tuple[str, ...]
) -> None:
    own = write_densenet(tmp_path, Net.random(rng))
    (own / "densenet_labels.txt").write_text("\n".join(lines))
    assert load(own)[1].labels == labels


def leave(own: Path) -> None:
    (own.parent / "outside").write_text("secret")
    (own / "densenet_labels.txt").unlink()
    (own / "densenet_labels.txt").symlink_to(own.parent / "outside")


AGAIN = '{ name: "data_0" dims: [ 1, 3, 32, 32 ] }'

WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "input": (lambda own: change(own, '"data_0"', '"data_1"'), "input 'data_1': the graph has ['data_0']"),
    "output": (lambda own: change(own, '"fc6_1"', '"fc7"'), "output 'fc7': the graph has ['fc6_1']"),
    "type": (
        lambda own: change(own, "data_type: TYPE_FP32\n    format", "data_type: TYPE_FP16\n    format"),
        "TYPE_FP16",
    ),
    "dims": (lambda own: change(own, "[ 1, 3, 32, 32 ]", "[ 1, 3, 64, 64 ]"), "the graph's shape is [1, 3, 32, 32]"),
    "batch": (lambda own: change(own, "max_batch_size : 0", "max_batch_size : 4"), "the first of them of the batch"),
    "inputs": (
        lambda own: change(own, "input [", f"input {AGAIN}\ninput ["),
        "expected one input, of images",
    ),
    "no labels": (
        lambda own: (own / "densenet_labels.txt").unlink(),
        "label_filename: there is no 'densenet_labels.txt'",
    ),
    "labels": (lambda own: (own / "densenet_labels.txt").write_bytes(b"ant\n\xff"), "in UTF-8, byte 4 is not"),
    "labels leave": (leave, "densenet_labels.txt: expected a file in its model's folder, got a link that leaves it"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_the_graph_is_refused(tmp_path: Path, rng: np.random.Generator, wrong: str) -> None:
    own = write_densenet(tmp_path, Net.random(rng))
    break_it, says = WRONG[wrong]
    break_it(own)
    assert says in refused(own)
    (own / "config.pbtxt").write_text(DENSENET)
    (own / "densenet_labels.txt").unlink(missing_ok=True)
    (own / "densenet_labels.txt").write_text("\n".join(LABELS))
    assert load(own)[1].labels == LABELS


@pytest.mark.parametrize("shape", [["n", 5, "h", "w"], ["n", 16], ["n", 3, 8, 8, 8]])
def test_network_of_no_pictures_is_refused(tmp_path: Path, rng: np.random.Generator, shape: list[int | str]) -> None:
    own = write_resnet(tmp_path, {"1": Net.random(rng)})
    (own / "config.pbtxt").write_text(BATCHED.replace("dims: [ 3, -1, -1 ]", f"dims: {[-1] * (len(shape) - 1)}"))
    onnx.save(Net.random(rng).to_onnx("input", "output", shape, flat=True), own / "1" / "resnet50.onnx")
    assert "input 'input': expected" in refused(own, "1/resnet50.onnx")

"""config.pbtxt: every form of it that Triton takes is read, and what is wrong with one is said with its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from service.runtime.broken import BrokenModel
from service.runtime.configuration import Configuration, Tensor, configuration_of_json, read_configuration
from service.runtime.policy import VersionPolicy
from tests.triton import BATCHED, DENSENET, Net, write_densenet, write_resnet


def write(folder: Path, text: str | bytes) -> Path:
    """Write a model's folder, `net`."""
    own = folder / "net"
    own.mkdir(exist_ok=True)
    (own / "config.pbtxt").write_bytes(text.encode() if isinstance(text, str) else text)
    return own


def read(folder: Path, text: str | bytes) -> Configuration:
    configuration = read_configuration(write(folder, text))
    assert configuration is not None
    return configuration


def refused(folder: Path, text: str | bytes) -> str:
    with pytest.raises(BrokenModel) as caught:
        read_configuration(write(folder, text))
    assert str(folder) not in caught.value.reason
    assert str(folder) in str(caught.value)
    assert len(caught.value.reason) < 1000
    assert read(folder, "max_batch_size: 4").max_batch_size == 4  # a good one is read after it
    return caught.value.reason


def test_quick_starts_model_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    own = write_densenet(tmp_path, Net.random(rng))
    assert read_configuration(own) == Configuration(
        own,
        max_batch_size=0,
        file_name="model.onnx",
        inputs=(Tensor("data_0", "TYPE_FP32", (3, 32, 32), "FORMAT_NCHW", reshape=(1, 3, 32, 32)),),
        outputs=(Tensor("fc6_1", "TYPE_FP32", (5,), label_filename="densenet_labels.txt", reshape=(1, 5, 1, 1)),),
    )


def test_fields_that_mean_nothing_here_are_passed_over(tmp_path: Path, rng: np.random.Generator) -> None:
    own = write_resnet(tmp_path, {"1": Net.random(rng)})
    assert read_configuration(own) == Configuration(
        own,
        max_batch_size=8,
        file_name="resnet50.onnx",
        inputs=(Tensor("input", "TYPE_FP32", (3, -1, -1)),),
        outputs=(Tensor("output", "TYPE_FP32", (5,), label_filename="labels/imagenet.txt"),),
        version_policy=VersionPolicy.specific([1, 3]),
    )


def test_no_file_is_no_configuration_and_an_empty_one_is_all_defaults(tmp_path: Path) -> None:
    assert read_configuration(tmp_path) is None
    own = write(tmp_path, "# nothing\n")
    assert read_configuration(own) == Configuration(own)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("version_policy: { latest: { num_versions: 2 } }", VersionPolicy.latest(2)),
        ("version_policy { latest {} }", VersionPolicy.latest(1)),
        ("version_policy {}", VersionPolicy.latest(1)),
        ("version_policy: { all: {} }", VersionPolicy.all()),
        ("version_policy < all <> >", VersionPolicy.all()),
        ("version_policy: { specific: { versions: 3, versions: 1 } }", VersionPolicy.specific([1, 3])),
        ("max_batch_size: 1", None),
    ],
)
def test_policies_are_read(tmp_path: Path, text: str, policy: VersionPolicy | None) -> None:
    assert read(tmp_path, text).version_policy == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name: "net"\nmax_batch_size: many\n', "config.pbtxt:2:17: not a readable configuration"),
        ("max_batch_size 8", "config.pbtxt:1:16: not a readable configuration"),
        ('input [\n  { name: "x"\n    data_type: TYPE_FP8 }\n]', "config.pbtxt:3:16: not a readable configuration"),
        ("max_batch_size: 99999999999", "config.pbtxt:1:17"),
        ("input { name: 'x'", "config.pbtxt:1"),
        ('name: "never closed', "config.pbtxt:1"),
        ("version_policy { all {} latest {} }", "config.pbtxt:1"),
        (b'name: "net"\n# na\xefve', "config.pbtxt:2:5: expected UTF-8"),
        (b"\0" * 100, "config.pbtxt:1"),
        pytest.param(os.urandom(64) + b"\xff", "config.pbtxt", id="noise"),
        ("unknown { " * 100_000, "config.pbtxt"),
        ("#" * 2**20 + "#", "expected at most 1048576 bytes"),
        ('name: "other"', "name: expected that of its folder, 'net', got 'other'"),
        ('platform: "tensorrt_plan"', "expected platform 'onnxruntime_onnx' or backend 'onnxruntime', got platform"),
        ('platform: "ensemble"', "got platform 'ensemble'"),
        ('backend: "python"', "got platform '', backend 'python'"),
        (
            "input { dims: 99999999999999999999999999932 }",
            "config.pbtxt:1:15: not a readable configuration: Value out of",
        ),
        ("input { data_type: 99999999999999999999999932 }", "config.pbtxt: not a readable configuration: Value out of"),
        ("input { data_type: 77 }", "expected a data_type and a format of Triton's"),
        ("output { data_type: -1 }", "expected a data_type and a format of Triton's"),
        ("input { format: 3 }", "expected a data_type and a format of Triton's"),
        ("max_batch_size: -1", "max_batch_size: expected 0 or more, got -1"),
        ('default_model_filename: "../../outside.onnx"', "expected the name of a file in the version's folder"),
        ('default_model_filename: "/etc/passwd"', "expected the name of a file in the version's folder"),
        ('default_model_filename: ".."', "expected the name of a file in the version's folder"),
        ('default_model_filename: "x\\0"', "expected the name of a file in the version's folder"),
        ('output { label_filename: "../../secret" }', "label_filename: expected a file in the model's folder"),
        ('output { label_filename: "/etc/passwd" }', "label_filename: expected a file in the model's folder"),
        ('output { label_filename: "x\\0" }', "label_filename: expected a file in the model's folder"),
        ("version_policy { specific {} }", "version_policy: specific: expected versions from 1"),
        ("version_policy { specific { versions: [0] } }", "version_policy: specific: expected versions from 1"),
        ("version_policy { specific { versions: [-5, 2] } }", "version_policy: specific: expected versions from 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_line_that_cannot_be_read_is_not_repeated(tmp_path: Path) -> None:
    reason = refused(tmp_path, "\nthe secret of the house")
    assert reason == 'config.pbtxt:2:5: not a readable configuration: Expected "{".'
    assert "hash" not in refused(tmp_path, "root:$6$salt$hash:19000:0:99999:7:::")


@pytest.mark.filterwarnings("ignore:.*invalid escape:DeprecationWarning")
def test_damage_is_a_broken_model_or_none(tmp_path: Path, rng: np.random.Generator) -> None:
    pieces = [b"", b"{", b"[", b"<", b"}", b'"', b":", b"\\", b"#", b"-1", b"9" * 30, b"\xff", b"\n", b"dims"]
    reasons = []
    for _ in range(300):
        changed = bytearray((DENSENET if rng.random() < 0.5 else BATCHED).encode())
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(changed)))
            changed[place : place + int(rng.integers(20))] = pieces[rng.integers(len(pieces))]
        try:
            read_configuration(write(tmp_path, bytes(changed)))
        except BrokenModel as error:
            reasons.append(error.reason)
    assert len(reasons) > 100
    assert all(str(tmp_path) not in reason for reason in reasons)


def test_configuration_behind_a_link_that_leaves_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("max_batch_size: 4")
    own = tmp_path / "net"
    own.mkdir()
    (own / "config.pbtxt").symlink_to(outside)
    with pytest.raises(BrokenModel, match=r"config\.pbtxt: expected a file in its model's folder"):
        read_configuration(own)
    (own / "config.pbtxt").unlink()
    os.mkfifo(own / "config.pbtxt")
    with pytest.raises(BrokenModel, match=r"config\.pbtxt: expected a regular file, got a pipe"):
        read_configuration(own)
    (own / "config.pbtxt").unlink()
    assert read(tmp_path, "max_batch_size: 4").max_batch_size == 4


def test_json_of_a_load_request_is_read(tmp_path: Path) -> None:
    text = """{"name": "net", "platform": "onnxruntime_onnx", "maxBatchSize": 4, "unheard": [1],
        "version_policy": {"specific": {"versions": ["2", 3]}}, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}]}"""
    assert configuration_of_json(text, tmp_path / "net") == Configuration(
        tmp_path / "net",
        max_batch_size=4,
        inputs=(Tensor("x", "TYPE_FP32", (3,)),),
        version_policy=VersionPolicy.specific([2, 3]),
    )


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "[3]", "null", '{"max_batch_size": "x"}', '{"max_batch_size": 1.5}', '{"input": 3}', "[" * 100_000],
        *['{"backend": "python"}', '{"name": "../net"}', '{"default_model_filename": "a/b"}'],
        *['{"input": [{"dims": [1e300]}]}', '{"input": [{"data_type": 99}]}', '{"input": [{"data_type": 1e99}]}'],
    ],
)
def test_json_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BrokenModel, match="config: ") as caught:
        configuration_of_json(text, tmp_path / "net")
    assert len(caught.value.reason) < 1000
    assert configuration_of_json("{}", tmp_path / "net") == Configuration(tmp_path / "net")

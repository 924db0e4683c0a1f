"""Models with a config.pbtxt at /v2: their graph's own outputs, in the shapes that are configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from starlette.testclient import TestClient

from tests.claims import assert_error, relative_error
from tests.conftest import MakeClient
from tests.triton import LABELS, Net

TWO = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 4, 1, 1 ] }
output { name: "classes" data_type: TYPE_FP32 dims: [ 5, 1 ] reshape { shape: [ 5, 1, 1 ] } label_filename: "labels.txt" }
"""
"""What is called logits is another output than the one that has labels."""


def write(folder: Path, net: Net, configuration: str) -> None:
    """Write `net`: pooled features `logits` (N,4,1,1), and `classes` (N,5,1,1)."""
    own = folder / "net"
    (own / "1").mkdir(parents=True)
    (own / "config.pbtxt").write_text(configuration)
    (own / "labels.txt").write_text("\n".join(LABELS))
    model = net.to_onnx("x", "classes", ["n", 3, "h", "w"])
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["logits" if name == "m" else name for name in names]
    model.graph.output.insert(0, helper.make_tensor_value_info("logits", 1, ["n", 4, 1, 1]))
    onnx.save(model, own / "1" / "model.onnx")


def infer(client: TestClient, x: np.ndarray, *outputs: dict[str, Any], name: str = "x") -> dict[str, np.ndarray]:
    given = {"name": name, "shape": x.shape, "datatype": "FP32", "data": x.reshape(-1).tolist()}
    document = {"inputs": [given], **({"outputs": list(outputs)} if outputs else {})}
    answer = client.post("/v2/models/net/infer", json=document)
    assert answer.status_code == 200, answer.text
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]}


@pytest.fixture
def net(rng: np.random.Generator) -> Net:
    return Net.random(rng)


def hidden(net: Net, x: np.ndarray) -> np.ndarray:
    """The pooled features, from the logits: the last layer is linear, and has more rows than columns."""
    logits = np.stack([net.logits(one) for one in x])
    return np.linalg.lstsq(net.last[:, :, 0, 0].astype(np.float64), logits.T, rcond=None)[0].T


def test_own_names_and_dims_come_before_those_of_here(
    make_client: MakeClient, tmp_path: Path, net: Net, rng: np.random.Generator
) -> None:
    write(tmp_path, net, TWO)
    client = make_client(models=tmp_path)
    page = client.get("/v2/models/net").json()
    assert page["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    assert [(one["name"], one["shape"]) for one in page["outputs"]] == [
        ("logits", [-1, 4, 1, 1]),
        ("classes", [-1, 5, 1]),
    ]
    x = rng.normal(size=(3, 3, 9, 6)).astype(np.float32)
    got = infer(client, x)
    assert list(got) == ["logits", "classes"]
    assert got["logits"].shape == (3, 4, 1, 1)
    assert got["classes"].shape == (3, 5, 1)
    expected = np.stack([net.logits(one) for one in x])
    assert relative_error(got["classes"][:, :, 0], expected) < 1e-4
    assert relative_error(got["logits"][:, :, 0, 0], hidden(net, x)) < 1e-3
    (likely,) = infer(client, x, {"name": "probabilities"}).values()
    assert relative_error(likely, np.exp(expected) / np.exp(expected).sum(1, keepdims=True)) < 1e-3


def test_classes_have_labels_and_other_outputs_have_none(
    make_client: MakeClient, tmp_path: Path, net: Net, rng: np.random.Generator
) -> None:
    write(tmp_path, net, TWO)
    x = rng.normal(size=(2, 3, 9, 6)).astype(np.float32)
    wanted = [{"name": name, "parameters": {"classification": 1}} for name in ("classes", "logits")]
    got = infer(make_client(models=tmp_path), x, *wanted)
    best = [int(net.logits(one).argmax()) for one in x]
    assert [str(text).split(":")[1:] for text in got["classes"].reshape(-1)] == [[str(i), LABELS[i]] for i in best]
    assert [str(text).count(":") for text in got["logits"].reshape(-1)] == [1, 1]


@pytest.mark.parametrize("said", ["max_batch_size: 2", ""], ids=["batched", "nothing"])
def test_what_is_not_configured_is_the_graphs(
    make_client: MakeClient, tmp_path: Path, net: Net, rng: np.random.Generator, said: str
) -> None:
    """As Triton finds out names and shapes for itself. The first output is classified."""
    write(tmp_path, net, said)
    client = make_client(models=tmp_path)
    page = client.get("/v2/models/net").json()
    assert page["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    assert [(one["name"], len(one["shape"])) for one in page["outputs"]] == [("logits", 2), ("classes", 4)]
    got = infer(client, rng.normal(size=(3, 3, 9, 6)).astype(np.float32))
    assert {name: len(array) for name, array in got.items()} == {"logits": 3, "classes": 3}


def test_one_sample_may_have_its_batch_axis_or_not(
    make_client: MakeClient, tmp_path: Path, net: Net, rng: np.random.Generator
) -> None:
    write(
        tmp_path,
        net,
        'input { name: "x" dims: [ 3, 8, 8 ] reshape { shape: [ 1, 3, 8, 8 ] } }\n'
        'output { name: "classes" dims: [ 5 ] reshape { shape: [ 1, 5, 1, 1 ] } }',
    )
    client = make_client(models=tmp_path)
    x = rng.normal(size=(3, 8, 8)).astype(np.float32)
    for given in (x, x[None]):
        (got,) = infer(client, given).values()
        assert got.shape == (5,)
        assert relative_error(got, net.logits(x)) < 1e-4
    two = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    (got,) = infer(client, two).values()
    assert relative_error(got, np.stack([net.logits(one) for one in two])) < 1e-4  # more than Triton takes
    document = {"inputs": [{"name": "x", "shape": [8, 8], "datatype": "FP32", "data": [0.0] * 64}]}
    answer = client.post("/v2/models/net/infer", json=document)
    assert_error(answer, 400, "invalid_tensor", "expected a shape of 3 sizes, or 4 with the batch first, got (8, 8)")

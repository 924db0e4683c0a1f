"""POST /v1/embed in-process: every mistake has its own error, and what makes no descriptor says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from graphs.operators.catalogue import CATALOGUE
from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.claims import assert_error
from tests.conftest import MakeClient
from tests.service.api.colour import GOOD
from tests.service.api.descriptors import fill, picture
from tests.service.api.exported import png
from tests.service.api.serving import serving
from tests.tiny import TinyClassifier, card


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    fill(folder)
    with serving(models=folder) as made:
        yield made


BAD = {
    "no such operator": ("pool=gemm", "pool: expected an operator", "gem"),
    "no name": ("pool=", "pool: expected an operator"),
    "operator with weights": ("pool=vlad", "pool: 'vlad' takes centres beside the features"),
    "windows": ("pool=max&kernel=2", "kernel: expected none for a descriptor: windows are as many as fit"),
    "strips": ("pool=max&strips=true", "strips: expected none for a descriptor"),
    "a mask": ("pool=max&mask=[[1]]", "mask: expected none for a descriptor"),
    "indices": ("pool=max&return_indices=true", "return_indices: expected none for a descriptor"),
    "layout": ("pool=max&layout=channels_last", "layout: expected none"),
    "keeps no length": ("pool=wavelet", "one length, 'wavelet' makes", "of maps of 5×7 and 12×9"),
    "half a grid": ("pool=max&output_size=2,none", "one length, 'max' makes 14×6 and 18×6 numbers"),
    "out of range": ("pool=gem&p=0", "pool=gem: p: "),
    "another operator's": ("pool=max&p=3", "unknown parameter 'p' of pool=max; known are: model, version, pool"),
    "without an operator": ("p=3", "unknown parameter 'p'; known are: model, version, pool, normalize; with `pool`"),
    "boxes": ("pool=max&boxes=[[1,2,3]]", "boxes: expected [[x1, y1, x2, y2], …]"),
    "boxes that are none": ("pool=max&boxes=hello", "boxes: expected [[x1, y1, x2, y2], …]"),
    "a box outside": ("pool=max&boxes=[[0,0,2,2],[1,1,6,5]]", "boxes[1]: expected 0 ≤ x1 ≤ x2 ≤ 5", "got 1, 1, 6, 5"),
    "normalize": ("normalize=perhaps", "normalize: "),
    "too many": ("pool=" + ",".join(["max"] * 17), "pool: "),
}


@pytest.mark.parametrize(("query", "says"), [(one[0], one[1:]) for one in BAD.values()], ids=BAD)
def test_what_makes_no_descriptor_is_a_clear_422(client: TestClient, query: str, says: tuple[str, ...]) -> None:
    assert_error(client.post(f"/v1/embed?model=gap&{query}", content=GOOD), 422, "invalid_parameter", *says)


NEEDS = {"kmax": "&k=3", "fractional_max": "&output_size=2", "lp": "&p=3"}


@pytest.mark.parametrize("op", CATALOGUE)
def test_every_operator_makes_one_length_or_says_why_not(client: TestClient, rng: np.random.Generator, op: str) -> None:
    lengths = []
    for size in [(21, 34), (60, 18), (2, 2)]:
        response = client.post(f"/v1/embed?model=gap&pool={op}{NEEDS.get(op, '')}", content=png(picture(rng, size)))
        if response.status_code != 200:
            assert CATALOGUE[op].weights or op in {"blur", "wavelet"} or (op, size) == ("fractional_max", (2, 2))
            assert_error(response, 422, "invalid_parameter", "pool")
            return
        vector = np.array(response.json()["results"][0]["embedding"])
        assert np.isfinite(vector).all()
        lengths.append(len(vector))
    assert len(set(lengths)) == 1
    assert lengths[0] >= 6


def test_other_errors_are_those_of_every_image_request(client: TestClient) -> None:
    assert_error(client.post("/v1/embed?model=gap", content=GOOD[:50]), 422, "invalid_image")
    assert_error(client.post("/v1/embed?model=gap&pool=avg", content=b"hello"), 415, "unsupported_media_type")
    assert_error(client.post("/v1/embed?model=nope&pool=avg", content=GOOD), 404, "model_not_found")
    assert_error(client.post("/v1/embed?model=gap"), 400, "malformed")
    files = [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD[:40]))]
    assert_error(client.post("/v1/embed?model=gap&pool=avg", files=files), 422, "invalid_image", "images[1]")
    response = client.post("/v1/embed?model=gap", content=GOOD, headers={"Accept": "image/png"})
    assert_error(response, 406, "not_acceptable", "expected one of application/json, application/x-npy")
    headers = {"X-Request-Timeout": "1e-9"}
    assert_error(client.post("/v1/embed?model=gap&pool=avg", content=GOOD, headers=headers), 504, "timeout")
    assert_error(
        client.post("/v1/embed?model=colour", content=GOOD), 422, "invalid_parameter", "no embedding of its own"
    )
    assert client.post("/v1/embed?model=gap&pool=avg", content=GOOD).status_code == 200


def test_network_without_a_map_before_its_head_is_a_422(make_client: MakeClient, tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((12, 3), np.float32), "w")
    nodes = [helper.make_node("Flatten", ["images"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "flat",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    (tmp_path / "flat" / "1").mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        tmp_path / "flat/1/model.onnx",
    )
    (tmp_path / "flat/1/model.json").write_text("{}")
    client = make_client(models=tmp_path)
    for _ in range(2):
        response = client.post("/v1/embed?pool=avg", content=png(np.zeros((2, 2, 3), np.uint8)))
        assert_error(response, 422, "invalid_parameter", "model flat/1 has no features")


def test_descriptors_are_bounded_together(make_client: MakeClient, tmp_path: Path) -> None:
    """Each of them, and each operator's part, is within the limit."""
    fill(tmp_path)
    forms = [("image", ("a.png", GOOD)), ("image", ("b.png", GOOD))]
    road = "/v1/embed?model=gap&pool=max,avg&output_size=3"
    response = make_client(models=tmp_path).post(road, files=forms)
    length = response.json()["dimension"]
    client = make_client(models=tmp_path, max_tensor_elements=2 * length - 1)
    assert_error(client.post(road, files=forms), 413, "payload_too_large", "in all descriptors, 2 would have")
    assert client.post(road, content=GOOD).status_code == 200


def test_wrong_features_in_a_card_stop_the_start(tmp_path: Path) -> None:
    TinyClassifier.random(1).save(tmp_path / "colour" / "1", card(features="relu"))
    with pytest.raises(RepositoryError, match="the graph has no value 'relu'; the nearest maps are"):
        Repository.load(Settings(models=tmp_path))


def test_file_that_has_changed_since_the_start_is_a_500_that_says_nothing(
    make_client: MakeClient, tmp_path: Path
) -> None:
    path = TinyClassifier.random(1).save(tmp_path / "colour" / "1", card())
    client = make_client(models=tmp_path)
    path.write_bytes(path.read_bytes() + b"\0")
    assert_error(client.post("/v1/embed?pool=max", content=GOOD), 500, "internal", "the server's log has the detail")
    assert client.post("/v1/classify", content=GOOD).status_code == 200

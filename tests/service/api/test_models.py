"""GET /v1/models/{name}: what a model's page says of its geometry, of sharing runs, and of tiling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.conftest import MakeClient
from tests.tiny import TinyClassifier, card


def page(make_client: MakeClient, folder: Path) -> dict[str, object]:
    answer = make_client(models=folder, provider="cpu").get("/v1/models/tiny")
    assert answer.status_code == 200
    document: dict[str, object] = answer.json()
    return document


def test_page_says_what_the_graph_does_to_sizes(make_client: MakeClient, tmp_path: Path) -> None:
    """A 3×3 convolution of stride 1 and a mean: every pixel a feature that sees 3×3, one pixel is enough."""
    TinyClassifier.random(0).save(tmp_path / "tiny" / "1", card())
    told = page(make_client, tmp_path)
    assert told["total_stride"] == [1, 1]
    assert told["receptive_field"] == [3, 3]
    assert told["minimum_size"] == [1, 1]
    assert told["tiling"] is True
    assert told["tiling_reasons"] == []


def test_minimum_size_is_the_larger_of_card_and_graph(make_client: MakeClient, tmp_path: Path) -> None:
    TinyClassifier.random(0).save(tmp_path / "tiny" / "1", card(min_height=7, min_width=9))
    assert page(make_client, tmp_path)["minimum_size"] == [9, 7]


@pytest.mark.parametrize(("batch", "batching"), [(1, "one"), (4, "same-size")])
def test_fixed_graph_says_which_images_share_a_run(
    make_client: MakeClient, tmp_path: Path, batch: int, batching: str
) -> None:
    TinyClassifier.random(0).save(tmp_path / "tiny" / "1", card(), size=(8, 8), batch=batch)
    told = page(make_client, tmp_path)
    assert told["batching"] == batching
    assert told["fixed_size"] == [8, 8]
    assert told["batching_reasons"]


def test_graph_that_is_not_known_says_which_node_and_is_served(make_client: MakeClient, tmp_path: Path) -> None:
    model = TinyClassifier.random(0).to_onnx(card())
    resize = helper.make_node("Resize", ["r", "", "scales"], ["bigger"], name="enlarge", mode="nearest")
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    place = list(model.graph.node).index(mean)
    mean.input[0] = "bigger"
    model.graph.node.insert(place, resize)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    onnx.checker.check_model(model)
    folder = tmp_path / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    told = page(make_client, tmp_path)
    assert told["state"] == "ready"
    assert told["batching"] == "same-size"
    assert told["tiling"] is False
    for reasons in (told["batching_reasons"], told["tiling_reasons"]):
        assert isinstance(reasons, list)
        assert any("Resize" in reason and "enlarge" in reason for reason in reasons), reasons

"""The conversion: every head, exact at sizes it was not traced with; opset, names, metadata; nothing of this machine left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from export.heads import HEADS
from export.network import Network
from export.to_onnx import smallest_size, to_onnx
from export.verify import TOLERANCE, unseen_shapes, write_verified
from graphs.card import ModelCard, Preprocessing
from tests import reference
from tests.claims import relative_error
from tests.export.trunk import Trunk, tiny_network

CARD = ModelCard(
    description="four things",
    labels=("a", "b", "c", "d"),
    preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    backbone="trunk",
    training={"seed": 0},
)
CONFIGURATIONS: list[dict[str, Any]] = [
    *({"pooling": name} for name in HEADS),
    {"pooling": "gem", "p": 2.0, "per_channel": True},
    {"pooling": "lp", "p": 3.0, "mean": True},
    {"pooling": "attention", "hidden": 5, "gated": False},
    {"pooling": "spp", "levels": [1, 3], "kind": "avg"},
    {"pooling": "quadrants", "kind": "max"},
]


def run(path: Path, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, embedding = session.run(["logits", "embedding"], {"images": images.numpy()})
    return logits, embedding


@pytest.fixture(scope="module")
def gap_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gap") / "model.onnx"
    write_verified(tiny_network(), CARD, path)
    return path


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=str)
def test_every_head_is_exported_exactly(config: dict[str, Any], tmp_path: Path) -> None:
    network = tiny_network(**config)
    compared = write_verified(network, CARD, tmp_path / "model.onnx")
    assert [c.shape for c in compared] == unseen_shapes(CARD)
    assert max(c.error for c in compared) <= TOLERANCE
    model = ir.load(tmp_path / "model.onnx")
    assert {node.domain for node in model.graph} == {""}
    # what ONNX Runtime's CUDA provider has no kernel for at any opset
    assert not {"LpPool", "GlobalLpPool", "MaxRoiPool", "Multinomial", "Bernoulli"} & {n.op_type for n in model.graph}


@pytest.mark.parametrize(("levels", "kind"), [([4], "max"), ([1, 4], "avg")])
def test_bins_are_exact_at_any_size_of_the_feature_map(
    levels: list[int], kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    network = tiny_network(pooling="spp", levels=levels, kind=kind)
    write_verified(network, CARD, tmp_path / "model.onnx")
    for height, width in [(1, 1), (3, 3), (2, 3), (1, 9), (4, 4), (5, 7), (8, 3), (13, 22), (30, 31), (112, 113)]:
        images = torch.from_numpy(rng.normal(size=(2, 3, 2 * height - 1, 2 * width))).float()
        with torch.no_grad():
            features = network.forward_features(images).double().numpy()
        assert features.shape[2:] == (height, width)
        expected = np.stack([reference.pyramid(x, tuple(levels), kind) for x in features])
        assert relative_error(run(tmp_path / "model.onnx", images)[1], expected) <= TOLERANCE, (height, width)


@pytest.mark.parametrize("pooling", ["gap", "lse"])
def test_flat_ground_of_a_large_picture_does_not_drift(pooling: str, tmp_path: Path, rng: np.random.Generator) -> None:
    network = tiny_network(pooling=pooling)
    network.backbone.get_parameter("conv.weight").data.zero_()  # features are the bias, at every position
    values = rng.uniform(0.1, 1, 6).astype(np.float32)
    network.backbone.get_parameter("conv.bias").data.copy_(torch.from_numpy(values))
    write_verified(network, CARD, tmp_path / "model.onnx")
    embedding = run(tmp_path / "model.onnx", torch.zeros(1, 3, 1024, 1024))[1]
    assert relative_error(embedding, values[None].astype(np.float64)) <= 3e-6  # summed in one go: up to 3e-4


def test_opset_is_20_where_cuda_still_has_a_max_pool(gap_file: Path) -> None:
    model = onnx.load(gap_file)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]


def test_names_and_dynamic_axes_are_the_contract(gap_file: Path) -> None:
    graph = onnx.load(gap_file).graph

    def described(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]

    assert [described(v) for v in graph.input] == [("images", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])]
    assert [described(v) for v in graph.output] == [
        ("logits", onnx.TensorProto.FLOAT, ["batch", 4]),
        ("embedding", onnx.TensorProto.FLOAT, ["batch", 6]),
    ]


def test_card_is_in_the_file_with_what_the_network_knows(gap_file: Path) -> None:
    card = ModelCard.read(ir.load(gap_file))
    known = {"input": "images", "output": "logits", "embedding": "embedding", "head": {"pooling": "gap"}}
    assert card == CARD.model_copy(update=known)


def test_file_is_whole_and_valid(gap_file: Path) -> None:
    onnx.checker.check_model(gap_file, full_check=True)
    model = onnx.load(gap_file, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [path.name for path in gap_file.parent.iterdir()] == ["model.onnx"]
    assert gap_file.stat().st_mode & 0o777 == 0o644
    assert (model.producer_name, model.graph.name, model.doc_string) == ("poolserve", "network", "four things")
    assert model.producer_version


def test_nothing_of_this_machine_is_in_the_file(gap_file: Path) -> None:
    content = gap_file.read_bytes()
    for trace in (
        str(Path.cwd()),
        str(Path.home()),
        "site-packages",
        ".py",
        "Traceback",
        "pkg.torch",
        "ExportedProgram",
    ):
        assert trace.encode() not in content, trace
    model = ir.load(gap_file)
    assert list(model.metadata_props) == ["poolserve.card"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph)


@pytest.mark.parametrize("config", [{"pooling": "gap"}, {"pooling": "quadrants", "kind": "max"}], ids=str)
def test_same_network_gives_the_same_bytes(config: dict[str, Any], tmp_path: Path) -> None:
    network = tiny_network(**config)
    write_verified(network, CARD, tmp_path / "first.onnx")
    write_verified(tiny_network(7, **config), CARD, tmp_path / "other.onnx")
    write_verified(network, CARD, tmp_path / "again.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert (tmp_path / "first.onnx").read_bytes() != (tmp_path / "other.onnx").read_bytes()


@pytest.fixture
def partly_training() -> Iterator[Network]:
    network = tiny_network(pooling="stochastic").train()
    network.backbone.eval()
    yield network
    assert network.training
    assert network.head.training
    assert not network.backbone.training


def test_network_in_training_is_exported_as_in_evaluation(partly_training: Network, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 11, 8)
    write_verified(partly_training, CARD, tmp_path / "model.onnx")
    with torch.no_grad():
        features = partly_training.forward_features(images)[0].double().numpy()
    assert relative_error(run(tmp_path / "model.onnx", images)[1][0], reference.stochastic(features)) <= TOLERANCE


@pytest.mark.parametrize(("padding", "smallest"), [(1, (1, 1)), (0, (3, 3))])
def test_smallest_size_is_found_by_trying(padding: int, smallest: tuple[int, int], tmp_path: Path) -> None:
    network = tiny_network(padding=padding)
    assert smallest_size(network) == smallest
    card = ModelCard.read(to_onnx(network, CARD))
    assert card is not None
    assert (card.min_height, card.min_width) == smallest


class Strip(nn.Module):
    """Takes 5 rows and 2 columns, or more."""

    in_channels, num_features, total_stride = 3, 6, 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, (5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


def test_smallest_height_and_width_may_differ(tmp_path: Path) -> None:
    compared = write_verified(Network(Strip(), {"pooling": "gap"}, 4), CARD, tmp_path / "model.onnx")
    assert compared[0].shape == (1, 3, 5, 2)


class Broken(Trunk):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.nan


class Huge(Trunk):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(super().forward(x), 16)


def test_network_that_takes_no_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.to_onnx.LARGEST_MINIMUM", 16)
    with pytest.raises(ValueError, match="takes no image up to 16×16: its outputs are not finite"):
        smallest_size(Network(Broken(), {"pooling": "gap"}, 4))
    with pytest.raises(ValueError, match=r"takes no image up to 16×16: .*Output size is too small"):
        smallest_size(Network(Huge(), {"pooling": "gap"}, 4))


def test_card_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the card has 2 labels, the network 4 classes"):
        to_onnx(tiny_network(), ModelCard(labels=("a", "b")))
    with pytest.raises(ValueError, match=r"takes 3 channels as NCHW, .* gives 1 \(L\) as NCHW"):
        to_onnx(tiny_network(), ModelCard(preprocessing=Preprocessing(channels="L")))
    with pytest.raises(ValueError, match=r"takes 3 channels as NCHW, .* gives 3 \(RGB\) as NHWC"):
        to_onnx(tiny_network(), ModelCard(preprocessing=Preprocessing(layout="NHWC")))

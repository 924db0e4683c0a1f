"""Backbone, head and classifier as one; and weights from files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from export.backbones import BACKBONES, create_backbone
from export.backbones.resnet import resnet18
from export.network import Network
from export.weights import classes_in, load_weights, read_state_dict
from tests.export.trunk import Trunk, tiny_network


def test_forward_is_features_then_head() -> None:
    network, x = tiny_network(pooling="catavgmax"), torch.rand(2, 3, 9, 8)
    features = network.forward_features(x)
    assert features.shape == (2, 6, 5, 4)
    logits, embedding = network(x)
    assert torch.equal(network.forward_head(features), logits)
    assert torch.equal(network.forward_head(features, pre_logits=True), embedding)
    torch.testing.assert_close(embedding, torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))
    torch.testing.assert_close(logits, embedding @ network.classifier.weight.T + network.classifier.bias)


def test_attributes_describe_the_network() -> None:
    network = Network(Trunk(in_channels=1), {"pooling": "spp", "levels": [1, 2]}, 7)
    assert (network.in_channels, network.num_features, network.total_stride, network.num_classes) == (1, 30, 2, 7)
    assert network.head_config == {"pooling": "spp", "levels": [1, 2], "kind": "max"}


def test_head_configuration_is_left_as_given() -> None:
    config = {"pooling": "gem", "p": 4.0}
    Network(Trunk(), config, 2)
    assert config == {"pooling": "gem", "p": 4.0}


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the member 'pooling', got \['p'\]"):
        Network(Trunk(), {"p": 3}, 2)
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        Network(Trunk(), {"pooling": "gap"}, 0)


def test_backbones_are_built_by_name_and_unknown_ones_refused() -> None:
    for name in BACKBONES:
        backbone = create_backbone(name, 1).eval()
        network = Network(backbone, {"pooling": "gap"}, 3)
        with torch.no_grad():
            features = network.forward_features(torch.rand(1, 1, 65, 40))
        stride = network.total_stride
        assert features.shape == (1, network.num_features, -(-65 // stride), -(-40 // stride)), name
    with pytest.raises(ValueError, match="unknown backbone 'vgg'; there are convnet, resnet18, resnet34, resnet50"):
        create_backbone("vgg")


def torchvision_like(classes: int) -> dict[str, torch.Tensor]:
    """A state dict as torchvision's resnet18 has it, with weights of its own."""
    state = {**resnet18().state_dict()}
    fc = nn.Linear(512, classes)
    return {**state, "fc.weight": fc.weight.detach(), "fc.bias": fc.bias.detach()}


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "model", "parallel"])
def test_torchvision_weights_load_with_their_classifier(wrap: str, tmp_path: Path) -> None:
    state = torchvision_like(10)
    content = {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
    }[wrap]
    read = read_state_dict(saved(content, tmp_path / "weights.pth"))
    assert classes_in(read) == 10
    network = Network(resnet18(), {"pooling": "gem"}, 10)
    assert load_weights(network, read) == []
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert torch.equal(network.classifier.weight, state["fc.weight"])
    assert torch.equal(network.classifier.bias, state["fc.bias"])


def test_old_files_without_batch_counters_load(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in torchvision_like(10).items() if "num_batches_tracked" not in name}
    network = Network(resnet18(), {"pooling": "gap"}, 10)
    assert load_weights(network, read_state_dict(saved(state, tmp_path / "weights.pth"))) == []


@pytest.mark.parametrize(("pooling", "classes"), [("gap", 7), ("catavgmax", 10)])
def test_classifier_that_does_not_fit_is_left_out_and_named(pooling: str, classes: int) -> None:
    network = Network(resnet18(), {"pooling": pooling}, classes)
    before, state = network.classifier.weight.clone(), torchvision_like(10)
    assert load_weights(network, state) == ["fc.weight", "fc.bias"]
    assert torch.equal(network.classifier.weight, before)
    assert torch.equal(network.backbone.get_parameter("conv1.weight"), state["conv1.weight"])


def test_backbone_without_classifier_loads() -> None:
    state = resnet18().state_dict()
    assert classes_in(state) is None
    assert load_weights(Network(resnet18(), {"pooling": "gap"}, 3), state) == []


def test_a_whole_networks_weights_load(tmp_path: Path) -> None:
    source, target = tiny_network(1, pooling="gem"), tiny_network(2, pooling="gem")
    assert load_weights(target, read_state_dict(saved(source.state_dict(), tmp_path / "whole.pt"))) == []
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


def test_weights_of_another_backbone_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"not fit Trunk: 2 missing \(backbone.conv.weight, .*\); 120 left over \(backbone.conv1.weight, .* …\)$",
    ):
        load_weights(tiny_network(), torchvision_like(4))
    with pytest.raises(
        ValueError, match=r"the weights do not fit ResNet: 1 of another shape \(backbone.conv1.weight\)$"
    ):
        load_weights(Network(resnet18(in_channels=1), {"pooling": "gap"}, 10), torchvision_like(10))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "an empty dict"),
        ([torch.zeros(1)], "it holds list"),
        ({"weight": torch.zeros(1), "epoch": 3}, "a dict with int"),
        (torch.zeros(3), "it holds Tensor"),
    ],
)
def test_files_with_something_else_are_refused(content: object, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        read_state_dict(saved(content, tmp_path / "weights.pth"))


class Trap:
    """Unpickling it would call Path.touch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_weights_file_is_not_run(save: object, tmp_path: Path) -> None:
    save(Trap(tmp_path / "touched"), tmp_path / "weights.pth")  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"weights.pth is not a state dict written by torch.save"):
        read_state_dict(tmp_path / "weights.pth")
    assert not (tmp_path / "touched").exists()


def test_garbage_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"GARBAGE" * 100, b"PK\x03\x04 truncated"):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(ValueError, match="is not a state dict"):
            read_state_dict(tmp_path / "weights.pth")

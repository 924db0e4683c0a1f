"""ResNet: sizes as published, torchvision's names, blocks as torch.nn.functional computes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.backbones.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet34, resnet50
from export.network import Network

PUBLISHED = {resnet18: 11_689_512, resnet34: 21_797_672, resnet50: 25_557_032}
"""Parameters with 1000 classes, from torchvision's model pages."""


@pytest.mark.parametrize(("make", "parameters"), PUBLISHED.items())
def test_parameters_are_as_many_as_published(make: type[ResNet], parameters: int) -> None:
    network = Network(make(), {"pooling": "gap"}, 1000)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("make", "tensors", "some"),
    [
        (resnet18, 120, {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.bn2.running_var": (512,)}),
        (resnet34, 216, {"layer3.5.conv2.weight": (256, 256, 3, 3), "layer1.2.bn1.bias": (64,)}),
        (resnet50, 318, {"layer1.0.downsample.1.weight": (256,), "layer4.2.conv3.weight": (2048, 512, 1, 1)}),
    ],
)
def test_state_dict_has_torchvisions_names(make: type[ResNet], tensors: int, some: dict[str, tuple[int, ...]]) -> None:
    state = make().state_dict()
    assert len(state) == tensors  # torchvision's 122, 218 and 320, less fc.weight and fc.bias
    always = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.weight": (64,),
        "bn1.bias": (64,),
        "bn1.running_mean": (64,),
        "bn1.num_batches_tracked": (),
    }
    for name, shape in {**always, **some}.items():
        assert tuple(state[name].shape) == shape, name
    assert not any(name.startswith("layer1.0.downsample") for name in state) or make is resnet50


def randomised(block: nn.Module, rng: np.random.Generator) -> nn.Module:
    """Put statistics into the norms, so that none of them is the identity."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tensor.shape)))
    return block.eval()


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize(("inputs", "stride"), [(6, 1), (4, 1), (6, 2)])
def test_basic_block_is_the_papers(inputs: int, stride: int, rng: np.random.Generator) -> None:
    block = randomised(BasicBlock(inputs, 6, stride), rng)
    state, x = block.state_dict(), torch.from_numpy(rng.normal(size=(2, inputs, 7, 10))).float()
    y = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=stride, padding=1), state, "bn1"))
    y = norm(F.conv2d(y, state["conv2.weight"], padding=1), state, "bn2")
    shortcut = x
    if stride != 1 or inputs != 6:
        shortcut = norm(F.conv2d(x, state["downsample.0.weight"], stride=stride), state, "downsample.1")
    torch.testing.assert_close(block(x), F.relu(shortcut + y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("inputs", "stride"), [(12, 1), (5, 1), (12, 2)])
def test_bottleneck_is_the_papers_with_the_stride_in_its_middle(
    inputs: int, stride: int, rng: np.random.Generator
) -> None:
    block = randomised(Bottleneck(inputs, 3, stride), rng)
    state, x = block.state_dict(), torch.from_numpy(rng.normal(size=(2, inputs, 7, 10))).float()
    y = F.relu(norm(F.conv2d(x, state["conv1.weight"]), state, "bn1"))
    y = F.relu(norm(F.conv2d(y, state["conv2.weight"], stride=stride, padding=1), state, "bn2"))
    y = norm(F.conv2d(y, state["conv3.weight"]), state, "bn3")
    shortcut = x
    if stride != 1 or inputs != 12:
        shortcut = norm(F.conv2d(x, state["downsample.0.weight"], stride=stride), state, "downsample.1")
    torch.testing.assert_close(block(x), F.relu(shortcut + y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 33), (65, 20), (224, 224)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_features_are_a_32nd_of_any_image(height: int, width: int, in_channels: int) -> None:
    backbone = resnet18(in_channels).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, in_channels, height, width))
    assert backbone.total_stride == 32
    assert features.shape == (1, backbone.num_features, math.ceil(height / 32), math.ceil(width / 32))
    assert features.isfinite().all()
    assert (features >= 0).all()


def test_widths_are_512_and_2048() -> None:
    assert [make().num_features for make in (resnet18, resnet34, resnet50)] == [512, 512, 2048]

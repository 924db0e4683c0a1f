"""The features that are found are the backbone's, of every head; and trunk and head together are the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from export.to_onnx import to_onnx
from graphs.anysize.cut import FEATURES, WEIGHTS, cut_features
from graphs.card import ModelCard
from graphs.front import PIXELS, attach_front
from tests.claims import relative_error
from tests.export.configurations import CONFIGURATIONS
from tests.export.trunk import tiny_network
from tests.graphs.anysize import networks
from tests.graphs.anysize.parts import FLOAT32, assert_two_parts_are_the_whole, run

SIZES = [(1, 1), (1, 9), (3, 5), (17, 8), (32, 31)]


def exported(network: Any) -> tuple[ir.Model, ModelCard]:
    model = ir.from_proto(ir.to_proto(to_onnx(network, ModelCard())))
    card = ModelCard.read(model)
    assert card is not None
    return model, card


HEADS = dict(reversed(CONFIGURATIONS))
"""One configuration of each head: an export takes half a second."""


@pytest.mark.parametrize(("name", "config"), HEADS.items(), ids=HEADS)
def test_features_are_the_backbones_whatever_pools_them(
    name: str, config: dict[str, Any], rng: np.random.Generator
) -> None:
    network = tiny_network(int(rng.integers(2**31)), pooling=name, **config)
    model, card = exported(network)
    before = ir.to_proto(model).SerializeToString()
    cut = cut_features(model, card)
    assert ir.to_proto(model).SerializeToString() == before
    assert (cut.channels, cut.weighted) == (6, name == "attention")
    assert (cut.rows.level.stride, cut.rows.first, cut.rows.last) == (2, -1, 1)
    for size in SIZES:
        x = rng.normal(size=(2, 3, *size)).astype(np.float32)
        features = assert_two_parts_are_the_whole(model, cut, "images", x)
        with torch.no_grad():
            assert relative_error(features, network.forward_features(torch.from_numpy(x)).numpy()) <= FLOAT32
    attach_front(model, card)
    pixels = rng.integers(0, 256, (3, 20, 13, 3), np.uint8)
    assert_two_parts_are_the_whole(model, cut_features(model, card), PIXELS, pixels)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
def test_features_are_timms_forward_features(name: str, timm: Any, rng: np.random.Generator) -> None:
    """ReLU, hard-swish behind squeeze-and-excitation, and a sum without any activation are what these end in."""
    torch.manual_seed(int(rng.integers(2**31)))
    (family,) = (one for one in networks.FAMILIES if one.name == name)
    network = networks.build(timm, family, whole=False)
    model = networks.to_onnx(network, family.minimum)
    x = rng.normal(size=(1, 3, 75, 103)).astype(np.float32)
    features = assert_two_parts_are_the_whole(model, cut_features(model, ModelCard()), "images", x)
    with torch.no_grad():
        expected = network.forward_features(torch.from_numpy(x)).numpy()  # type: ignore[operator]
    assert relative_error(features, expected) <= 1e-5


@pytest.mark.parametrize("config", [{"hidden": 7}, {"hidden": 7, "gated": False}], ids=["gated", "plain"])
def test_weights_are_the_attention_maps(config: dict[str, Any], rng: np.random.Generator) -> None:
    network = tiny_network(int(rng.integers(2**31)), pooling="attention", **config)
    cut = cut_features(*exported(network))
    x = rng.normal(size=(2, 6, 5, 8)).astype(np.float32)
    weights = run(cut.head, FEATURES, x)[WEIGHTS]
    with torch.no_grad():
        expected = network.head.attention_map(torch.from_numpy(x)).numpy()  # type: ignore[operator]
    assert relative_error(weights, expected.reshape(2, 40)) <= FLOAT32

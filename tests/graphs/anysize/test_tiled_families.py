"""Families of networks in tiles: the same logits as the whole image's; those with a reduction in their middle say so."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from graphs.anysize.compile import compile_plan
from tests.graphs.anysize import exactness, networks, tiling

WHOLE = int(os.environ.get("ANYSIZE_IMAGES", "0")) > 0
"""Networks as their authors made them; else small."""

EVERY = {family.name: family for family in networks.FAMILIES}
TILED = ("resnet18", "resnet18d", "densenet121", "vgg11_bn", "repvgg_a0", "convnext_atto", "res2net50_26w_4s")
MORE = ("resnet34", "resnet50", "resnext50_32x4d", "regnetx_002", "inception_v3")
NOT_TILED = {
    "regnety_002": "ReduceMean 'node_mean': its result, which needs the whole image, goes back into the feature map",
    "resnet50_gn": "InstanceNormalization",
}


@pytest.mark.parametrize("name", TILED + (MORE if WHOLE else ()))
def test_tiles_are_exact(name: str, timm: Any, rng: np.random.Generator) -> None:
    import torch

    torch.manual_seed(int(rng.integers(2**31)))
    family = EVERY[name]
    model = networks.to_onnx(networks.build(timm, family, whole=WHOLE), family.minimum)
    plan = compile_plan(model, exactness.CARD)
    worst = tiling.errors(plan, rng, images=2, most=300)
    print(f"{name}: {worst}")
    assert max(worst.values()) <= exactness.BOUND


@pytest.mark.parametrize("name", NOT_TILED)
def test_a_reduction_in_the_middle_is_named(name: str, timm: Any) -> None:
    family = EVERY[name]
    plan = compile_plan(networks.to_onnx(networks.build(timm, family, whole=False), family.minimum), exactness.CARD)
    assert plan.tiled is None
    assert NOT_TILED[name] in str(plan.tiled_obstacles[0])

"""Gradients of pooling heads: finite everywhere, those of finite differences, and none for what is frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.heads import create_head
from tests.export.configurations import CHANNELS, CONFIGURATIONS, draw, every_configuration, make


@every_configuration
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_gradients_are_finite_on_flat_maps(name: str, config: dict[str, Any], value: float) -> None:
    head = create_head(name, CHANNELS, **config)
    x = torch.full((2, CHANNELS, 3, 3), value, requires_grad=True)
    head(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())


@every_configuration
def test_gradients_are_those_of_finite_differences(name: str, config: dict[str, Any], rng: np.random.Generator) -> None:
    head = make(name, config, rng).double()
    x = torch.from_numpy(rng.permutation(CHANNELS * 12).reshape(1, CHANNELS, 3, 4) / 20 + 0.05).requires_grad_()
    learned = {key: value for key, value in head.named_parameters() if value.requires_grad}

    def pooled(features: Tensor, *values: Tensor) -> Tensor:
        replaced = dict(zip(learned, values, strict=True))
        return torch.func.functional_call(head, replaced, (features,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(pooled, (x, *learned.values()), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "config"),
    [item for item in CONFIGURATIONS if item[0] in {"gem", "lse", "softmax", "mixed", "gated", "attention"}],
)
def test_learned_heads_learn_and_frozen_ones_do_not(
    name: str, config: dict[str, Any], rng: np.random.Generator
) -> None:
    head = make(name, config, rng)
    x = torch.from_numpy(draw(rng, 4, 4)).abs()
    pooled = head(x)
    if not config.get("learned", True):
        assert not pooled.requires_grad
        return
    (pooled * torch.rand_like(pooled)).sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key

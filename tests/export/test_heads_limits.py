"""Pooling heads one by one: what each tends to at the ends of its range, draws, attention maps, and golden numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from export.heads import create_head, functional
from export.heads.learned import Attention
from export.heads.pyramid import grid
from tests.export.configurations import CHANNELS, FLOAT32, SIZES, draw


def test_gem_with_p1_is_average(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 5, 7)).abs() + 0.01
    torch.testing.assert_close(functional.gem(x, 1.0), x.mean((2, 3)), rtol=FLOAT32, atol=0)


def test_gem_with_large_p_tends_to_maximum(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 5, 7)).abs() + 0.01
    p = 1e4  # at most max · (1 − 35^(−1/p)) below, 3.6e-4 of it
    torch.testing.assert_close(functional.gem(x, p), x.amax((2, 3)), rtol=math.log(35) / p + FLOAT32, atol=0)


def test_lse_with_large_r_tends_to_maximum(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 5, 7))
    r = 1e4  # at most ln(35) / r below
    torch.testing.assert_close(functional.log_sum_exp(x, r), x.amax((2, 3)), rtol=0, atol=math.log(35) / r + 1e-6)


def test_lse_with_small_r_tends_to_average(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 5, 7)).double()
    r = 1e-5  # r · variance / 2 above
    torch.testing.assert_close(functional.log_sum_exp(x, r), x.mean((2, 3)), rtol=0, atol=r * float(x.var()) * 5)


def test_softmax_with_alpha0_is_average(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 5, 7))
    torch.testing.assert_close(functional.softmax_weighted(x, 0.0), x.mean((2, 3)), rtol=FLOAT32, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_softmax_with_large_alpha_tends_to_the_extremes(sign: int, rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.permutation(35).reshape(1, 1, 5, 7)).float()  # neighbours differ by 1
    extreme = x.amax((2, 3)) if sign > 0 else x.amin((2, 3))
    torch.testing.assert_close(functional.softmax_weighted(x, sign * 30.0), extreme, rtol=FLOAT32, atol=1e-6)


def test_stochastic_draws_each_value_as_often_as_its_share(rng: np.random.Generator) -> None:
    torch.manual_seed(int(rng.integers(2**31)))
    values = torch.tensor([0.0, 1.0, 2.0, 5.0])
    n = 40_000
    head = create_head("stochastic", 1).train()
    drawn = head(values.view(1, 1, 2, 2).expand(n, 1, 2, 2))[:, 0]
    for value in values:
        share = float(value / values.sum())
        sigma = math.sqrt(share * (1 - share) / n)
        assert abs(float((drawn == value).float().mean()) - share) <= 5.5 * sigma  # fails by chance once in 10 million


def test_stochastic_draw_passes_the_gradient_to_the_drawn_position(rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, 3, 3)).abs().requires_grad_()
    pooled = functional.stochastic_draw(x)
    pooled.sum().backward()
    assert x.grad is not None
    assert (x.grad.sum((2, 3)) == 1).all()
    assert torch.equal((x.grad * x).sum((2, 3)), pooled)


def test_stochastic_gives_zero_on_a_zero_map_in_training_and_after() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[0, 0] = -1
    head = create_head("stochastic", 3)
    assert torch.equal(head.train()(x), torch.zeros(2, 3))
    assert torch.equal(head.eval()(x), torch.zeros(2, 3))


def test_stochastic_inference_gives_the_golden_numbers() -> None:
    x = torch.tensor([1.0, 3, 2, 4, 5, 2, 7, 1, 3, 8, 4, 2, 6, 1, 5, 9]).view(1, 1, 4, 4)
    windows = F.unfold(x, 2, stride=2).mT.reshape(4, 1, 2, 2)  # four windows as four maps
    pooled = functional.stochastic(windows).flatten()
    torch.testing.assert_close(pooled, torch.tensor([3.5455, 5.0, 6.1111, 6.3]), rtol=0, atol=5e-5)


def test_attention_map_sums_to_one_and_weighs_the_embedding(rng: np.random.Generator) -> None:
    head = create_head("attention", CHANNELS, hidden=8)
    x = torch.from_numpy(draw(rng, 4, 7))
    assert isinstance(head, Attention)
    attention = head.attention_map(x)
    assert attention.shape == (3, 1, 4, 7)
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum((1, 2, 3)), torch.ones(3))
    torch.testing.assert_close((attention * x).sum((2, 3)), head(x))


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (3, 3), (2, 5), (224, 225)])
def test_grid_is_torchs_adaptive_pooling(kind: str, n: int, height: int, width: int, rng: np.random.Generator) -> None:
    x = torch.from_numpy(draw(rng, height, width))
    wanted = F.adaptive_avg_pool2d(x, n) if kind == "avg" else F.adaptive_max_pool2d(x, n)
    # An average of 12 600 numbers of size 1 comes near 0, and both sides add them in float32: up to 2e-6 apart were seen.
    torch.testing.assert_close(grid(x, n, kind=kind), wanted, rtol=FLOAT32, atol=5e-6 if kind == "avg" else 0.0)


def test_middle_row_belongs_to_both_quadrants() -> None:
    x = torch.tensor([[1.0, 0, 0], [0, 8, 0], [0, 0, 2]]).view(1, 1, 3, 3)
    assert create_head("quadrants", 1, kind="max")(x).tolist() == [[8, 8, 8, 8]]
    assert create_head("quadrants", 1)(x).tolist() == [[2.25, 2, 2, 2.5]]

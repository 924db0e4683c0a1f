"""Pooling heads against tests/reference.py (NumPy, float64), at sizes from 1×1, and their limits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from export.heads import HEADS, create_head, functional, knobs
from export.heads.learned import Attention
from export.heads.pyramid import grid
from tests import reference

SIZES = [(1, 1), (3, 5), (7, 7), (14, 14), (1, 9)]
CHANNELS = 5
FLOAT32 = 2e-6
"""Relative to the largest value of the embedding: a dozen roundings of float32 (6e-8), and powers and logarithms."""

CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    ("gap", {}),
    ("gmp", {}),
    ("avgmax", {}),
    ("catavgmax", {}),
    ("sum", {}),
    ("l2", {}),
    ("l2", {"mean": True}),
    ("lp", {"p": 3.0}),
    ("lp", {"p": 1.5, "mean": True}),
    ("gem", {"p": 3.0}),
    ("gem", {"p": 2.5, "per_channel": True}),
    ("lse", {"r": 10.0}),
    ("lse", {"r": 4.0, "per_channel": True, "learned": False}),
    ("softmax", {"alpha": 1.0}),
    ("softmax", {"alpha": -2.0, "per_channel": True}),
    ("mixed", {"alpha": 0.3}),
    ("mixed", {"alpha": 0.8, "per_channel": True}),
    ("gated", {}),
    ("gated", {"per_channel": False}),
    ("stochastic", {}),
    ("attention", {"hidden": 7}),
    ("attention", {"hidden": 7, "gated": False}),
    ("spp", {}),
    ("spp", {"levels": [1, 2, 3, 6], "kind": "avg"}),
    ("quadrants", {}),
    ("quadrants", {"kind": "max"}),
]
IDS = [f"{name}-{json.dumps(config)}" for name, config in CONFIGURATIONS]
every_configuration = pytest.mark.parametrize(("name", "config"), CONFIGURATIONS, ids=IDS)
GLOBAL = [item for item in CONFIGURATIONS if item[0] not in {"spp", "quadrants"}]
every_global = pytest.mark.parametrize(("name", "config"), GLOBAL, ids=[f"{n}-{json.dumps(c)}" for n, c in GLOBAL])
MEANS = [item for item in CONFIGURATIONS if item[0] != "sum" and (item[0] not in {"l2", "lp"} or item[1].get("mean"))]
"""All but the sums, which grow with the area."""
every_mean = pytest.mark.parametrize(("name", "config"), MEANS, ids=[f"{n}-{json.dumps(c)}" for n, c in MEANS])
every_size = pytest.mark.parametrize(("height", "width"), SIZES)

Features = npt.NDArray[np.float32]
Oracle = Callable[[reference.Array], reference.Array]


def make(name: str, config: dict[str, Any], rng: np.random.Generator) -> torch.nn.Module:
    """A head in evaluation, its parameters moved a little off their start."""
    head = create_head(name, CHANNELS, **config).eval()
    for parameter in head.parameters():
        if parameter.requires_grad:
            parameter.data += torch.from_numpy(rng.uniform(-0.2, 0.2, parameter.shape)).float()
    return head


def draw(rng: np.random.Generator, height: int, width: int, n: int = 3) -> Features:
    return rng.normal(0.3, 1, (n, CHANNELS, height, width)).astype(np.float32)


def expected(name: str, config: dict[str, Any], head: torch.nn.Module, x: Features) -> npt.NDArray[np.float64]:
    p = {key: value.detach().double().numpy().squeeze() for key, value in head.named_parameters()}

    def each(formula: Callable[[reference.Array, float], reference.Array], values: reference.Array) -> Oracle:
        spread = np.broadcast_to(values, CHANNELS)
        return lambda y: np.concatenate([formula(c[None], v) for c, v in zip(y, spread, strict=True)])

    def pair(layer: str) -> tuple[reference.Array, reference.Array] | None:
        return (p[f"{layer}.weight"], p[f"{layer}.bias"]) if f"{layer}.weight" in p else None

    oracles: dict[str, Callable[[], Oracle]] = {
        "gap": lambda: reference.gap,
        "gmp": lambda: reference.gmp,
        "avgmax": lambda: reference.avgmax,
        "catavgmax": lambda: reference.catavgmax,
        "sum": lambda: reference.total,
        "l2": lambda: lambda y: reference.lp(y, 2, mean=config.get("mean", False)),
        "lp": lambda: lambda y: reference.lp(y, config["p"], mean=config.get("mean", False)),
        "gem": lambda: lambda y: reference.gem(y, p["p"]),
        "lse": lambda: each(reference.lse, np.exp(p["log_r"])),
        "softmax": lambda: each(reference.softmax_weighted, p["alpha"]),
        "mixed": lambda: lambda y: reference.mixed(y, 1 / (1 + np.exp(-p["logit_alpha"]))),
        "gated": lambda: lambda y: reference.gated(y, np.broadcast_to(p["weight"], CHANNELS), p["bias"]),
        "stochastic": lambda: reference.stochastic,
        "attention": lambda: lambda y: reference.attention(y, p["w.weight"], pair("V"), pair("U")),
        "spp": lambda: (
            lambda y: reference.pyramid(y, tuple(config.get("levels", (1, 2, 4))), config.get("kind", "max"))
        ),
        "quadrants": lambda: lambda y: reference.grid(y, 2, config.get("kind", "avg")),
    }
    oracle = oracles[name]()
    return np.stack([oracle(y) for y in x.astype(np.float64)])


def error(actual: Tensor, wanted: npt.NDArray[np.float64]) -> float:
    assert actual.shape == wanted.shape
    return float(np.abs(actual.detach().double().numpy() - wanted).max() / np.abs(wanted).max())


def test_every_head_is_tested() -> None:
    assert {name for name, _ in CONFIGURATIONS} == set(HEADS)


@every_configuration
@every_size
def test_head_is_the_papers_formula(
    name: str, config: dict[str, Any], height: int, width: int, rng: np.random.Generator
) -> None:
    x = draw(rng, height, width)
    head = make(name, config, rng)
    if name == "stochastic":
        x = np.abs(x)
    assert error(head(torch.from_numpy(x)), expected(name, config, head, x)) <= FLOAT32


@every_configuration
def test_num_features_is_the_embeddings_width(name: str, config: dict[str, Any]) -> None:
    head = create_head(name, CHANNELS, **config)
    assert head(torch.rand(2, CHANNELS, 4, 3)).shape == (2, head.num_features)


@every_configuration
def test_an_image_is_pooled_alike_alone_and_in_a_batch(
    name: str, config: dict[str, Any], rng: np.random.Generator
) -> None:
    head, x = make(name, config, rng), torch.from_numpy(draw(rng, 6, 5, n=4))
    together, alone = head(x), torch.cat([head(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=FLOAT32, atol=1e-6)


@every_global
def test_global_head_ignores_where_values_are(name: str, config: dict[str, Any], rng: np.random.Generator) -> None:
    head, x = make(name, config, rng), draw(rng, 5, 6)
    moved = x.reshape(3, CHANNELS, -1)[:, :, rng.permutation(30)].reshape(x.shape)
    torch.testing.assert_close(head(torch.from_numpy(moved)), head(torch.from_numpy(x)), rtol=FLOAT32, atol=1e-6)


@every_mean
@every_size
def test_constant_map_gives_its_constant(
    name: str, config: dict[str, Any], height: int, width: int, rng: np.random.Generator
) -> None:
    head, value = make(name, config, rng), float(rng.uniform(0.1, 3))
    pooled = head(torch.full((1, CHANNELS, height, width), value))
    torch.testing.assert_close(pooled, torch.full_like(pooled, value), rtol=FLOAT32, atol=0)


@every_configuration
def test_large_values_do_not_overflow(name: str, config: dict[str, Any], rng: np.random.Generator) -> None:
    head = make(name, config, rng)
    x = torch.from_numpy(draw(rng, 4, 4)).abs() * 1e15
    pooled = head(x)
    assert pooled.isfinite().all()
    if name not in {"sum", "l2", "lp"}:
        assert pooled.max() <= x.max() * (1 + FLOAT32)


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


@every_configuration
def test_configuration_is_plain_data_and_rebuilds_the_head(name: str, config: dict[str, Any]) -> None:
    head = create_head(name, CHANNELS, **config)
    stored = json.loads(json.dumps(head.config))
    again = create_head(name, CHANNELS, **stored)
    assert stored == head.config == again.config
    assert stored.keys() == knobs(HEADS[name]).keys()
    assert stored.items() >= config.items()


@every_configuration
def test_repr_names_every_knob(name: str, config: dict[str, Any]) -> None:
    head = create_head(name, CHANNELS, **config)
    for key, value in head.config.items():
        assert f"{key}={value!r}" in repr(head)


def test_repr_shows_the_learned_value() -> None:
    head = create_head("gem", 4, p=3.0)
    head.get_parameter("p").data.fill_(4.25)
    assert "learned p=4.25" in repr(head)


def test_unknown_head_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown pooling head 'mean'; there are gap, gmp, .*quadrants"):
        create_head("mean", 4)


def test_unknown_knob_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'gem' does not know q; it takes p, per_channel, learned, eps"):
        create_head("gem", 4, q=1)
    with pytest.raises(ValueError, match="'gap' does not know p; it takes no configuration"):
        create_head("gap", 4, p=1)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gem", {"p": 0}),
        ("gem", {"p": float("nan")}),
        ("gem", {"eps": 0}),
        ("lp", {"p": 0.5}),
        ("lp", {"p": float("inf")}),
        ("lse", {"r": -1}),
        ("softmax", {"alpha": float("inf")}),
        ("mixed", {"alpha": 1.0}),
        ("attention", {"hidden": 0}),
        ("spp", {"levels": []}),
        ("spp", {"levels": [0, 2]}),
        ("spp", {"kind": "sum"}),
        ("quadrants", {"kind": "min"}),
    ],
)
def test_value_out_of_range_is_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(config))} must be .*, got"):
        create_head(name, 4, **config)


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        create_head("gap", 0)


def test_grid_knows_average_and_maximum_only() -> None:
    with pytest.raises(ValueError, match="kind must be 'avg' or 'max', got 'sum'"):
        grid(torch.zeros(1, 1, 2, 2), 2, kind="sum")

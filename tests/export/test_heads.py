"""Pooling heads against tests/reference.py (NumPy, float64), at sizes from 1×1; and what holds of every head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.heads import HEADS, create_head
from tests import reference
from tests.export.configurations import (
    CHANNELS,
    CONFIGURATIONS,
    FLOAT32,
    Features,
    draw,
    every_configuration,
    every_global,
    every_mean,
    every_size,
    make,
)

Oracle = Callable[[reference.Array], reference.Array]


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

"""Trunk on tiles, merging, head: the same answer as the whole image through the unchanged graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.heads import HEADS, create_head
from export.to_onnx import OPSET, _quiet
from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import Plan
from graphs.card import ModelCard, Preprocessing
from tests.export.trunk import Trunk
from tests.graphs.anysize.tiling import errors

BOUND = 2e-6
CARD = ModelCard(input="images", preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)))

Pool = Callable[[Tensor], Tensor]


class Heads(nn.Module):
    """A trunk and any number of things to do with its features, each an output."""

    def __init__(self, trunk: nn.Module, pools: dict[str, Pool]) -> None:
        super().__init__()
        self.trunk = trunk
        self.pools = pools
        self.modules_of_pools = nn.ModuleList(pool for pool in pools.values() if isinstance(pool, nn.Module))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.trunk(x)
        return tuple(pool(features) for pool in self.pools.values())


def compiled(trunk: nn.Module, size: tuple[int, int] = (69, 90), **pools: Pool) -> Plan:
    """Export a trunk with pools, each an output of its name, and compile that."""
    network = Heads(trunk, pools).eval()
    for parameter in network.modules_of_pools.parameters():  # not where the training starts: some gates are ½ there
        parameter.data.add_(0.3 * torch.rand_like(parameter))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, *size),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(pools),
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return compile_plan(program.model, CARD.model_copy(update={"output": next(iter(pools))}))


def rules(plan: Plan) -> list[str]:
    assert plan.tiled is not None, [str(obstacle) for obstacle in plan.tiled_obstacles]
    return sorted(state.rule for state in plan.tiled.states)


def reasons(plan: Plan) -> str:
    assert plan.tiled is None
    return " | ".join(str(obstacle) for obstacle in plan.tiled_obstacles)


class Classified(nn.Module):
    """A head of the export and a classifier, as its networks have them."""

    def __init__(self, pooling: str, **config: object) -> None:
        super().__init__()
        self.head = create_head(pooling, 6, **config)
        self.classifier = nn.Linear(self.head.num_features, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.head(x))
        return logits


@pytest.fixture(scope="module")
def heads() -> Plan:
    """Every head of the export, with other configurations than the default's too, over one trunk."""
    pools: dict[str, Pool] = {name: Classified(name) for name in HEADS if name not in {"spp", "quadrants"}}
    pools["gem_per_channel"] = Classified("gem", p=7.0, per_channel=True)
    pools["lp_mean"] = Classified("lp", p=3.0, mean=True)
    pools["lse_sharp"] = Classified("lse", r=30.0, per_channel=True)
    pools["softmax_of_the_least"] = Classified("softmax", alpha=-4.0)
    pools["attention_ungated"] = Classified("attention", hidden=5, gated=False)
    return compiled(Trunk(), **pools)


@pytest.mark.parametrize("repeated", range(3))
def test_every_head_of_the_export(heads: Plan, rng: np.random.Generator, repeated: int) -> None:
    worst = errors(heads, rng)
    assert max(worst.values()) <= BOUND, worst


@pytest.fixture(scope="module")
def pyramids() -> Plan:
    return compiled(
        Trunk(),
        spp=Classified("spp"),
        spp_average=Classified("spp", levels=[1, 3], kind="avg"),
        quadrants=Classified("quadrants"),
        quadrants_max=Classified("quadrants", kind="max"),
    )


@pytest.mark.parametrize("repeated", range(2))
def test_bins_of_a_pyramid_are_cut_by_the_whole_image(pyramids: Plan, rng: np.random.Generator, repeated: int) -> None:
    worst = errors(pyramids, rng)
    assert max(worst.values()) <= BOUND, worst


QUERIES = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def positions(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # (N,P,C)


def attend(x: Tensor) -> Tensor:
    tokens = positions(x)
    return ((QUERIES @ tokens.transpose(1, 2)).softmax(-1) @ tokens).flatten(1)


def attend_heads(x: Tensor) -> Tensor:
    """Two heads: (N,P,2,3) to (N,2,P,3)."""
    tokens = positions(x).unflatten(2, (2, 3)).transpose(1, 2)
    queries = QUERIES.unflatten(1, (2, 3)).transpose(0, 1)
    return ((queries @ tokens.transpose(2, 3) / 3**0.5).softmax(-1) @ tokens).flatten(1)


def softmax_over_positions(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return (flat.softmax(2) * flat).sum(2)


def bilinear(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    gram = flat @ flat.transpose(1, 2) / flat.shape[2]
    return nn.functional.normalize(gram.sign().flatten(1) * (gram.flatten(1).abs() + 1e-5).sqrt())


def covariance(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    return (centred @ centred.transpose(1, 2) / flat.shape[2]).flatten(1)


OTHERS: dict[str, Pool] = {
    "adaptive_average": lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
    "adaptive_max": lambda x: nn.functional.adaptive_max_pool2d(x, 1).flatten(1),
    "minimum": lambda x: x.amin((2, 3)),
    "mean_and_std": lambda x: torch.cat([x.mean((2, 3)), x.std((2, 3))], 1),
    "variance": lambda x: x.var((2, 3), unbiased=False),
    "variance_of_columns_first": lambda x: ((x - x.mean((2, 3), keepdim=True)) ** 2).mean((2, 3)),
    "rms": lambda x: (x**2).mean((2, 3)).sqrt(),
    "norm": lambda x: x.flatten(2).norm(dim=2),
    "absolute_norm": lambda x: x.flatten(2).norm(p=1, dim=2),
    "power": lambda x: (x**3).sum((2, 3)) / (x**2).sum((2, 3)),
    "log_sum_exp": lambda x: torch.logsumexp(x, (2, 3)),
    "log_sum_exp_flat": lambda x: torch.logsumexp(x.flatten(2), 2),
    "top_k": lambda x: x.flatten(2).topk(5, dim=2).values.mean(2),
    "bottom_k": lambda x: x.flatten(2).topk(3, dim=2, largest=False).values,
    "softmax_over_positions": softmax_over_positions,
    "attend": attend,
    "attend_heads": attend_heads,
    "bilinear": bilinear,
    "normalised_first": lambda x: nn.functional.normalize(x, dim=1).mean((2, 3)),
    "normalised_last": lambda x: nn.functional.normalize(x.mean((2, 3))).log_softmax(1),
    "weighed_by_a_reduction": lambda x: (x * torch.sigmoid(x.mean((2, 3), keepdim=True))).sum((2, 3)),
    "centred_on_nothing": lambda x: (x - 0.25).exp().mean((2, 3)),
    "sum_of_rows": lambda x: x.sum(3, keepdim=True).sum(2).flatten(1),
}


@pytest.fixture(scope="module")
def others() -> Plan:
    return compiled(Trunk(), **OTHERS)


@pytest.mark.parametrize("repeated", range(3))
def test_other_heads(others: Plan, rng: np.random.Generator, repeated: int) -> None:
    worst = errors(others, rng)
    assert max(worst.values()) <= BOUND, worst
    assert {"sum", "max", "min", "exponential", "moments", "topk"} == set(rules(others))

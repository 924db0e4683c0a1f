"""A trunk with any number of heads, exported and compiled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from export.heads import create_head
from export.to_onnx import OPSET, _quiet
from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import Plan
from graphs.card import ModelCard, Preprocessing

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
            output_names=[f"out_{name}" for name in pools],  # no name that the exporter gives a node
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return compile_plan(program.model, CARD.model_copy(update={"output": f"out_{next(iter(pools))}"}))


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


QUERIES = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def positions(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)  # (N,P,C)


def attend(x: Tensor) -> Tensor:
    tokens = positions(x)
    return ((QUERIES.to(x) @ tokens.transpose(1, 2)).softmax(-1) @ tokens).flatten(1)

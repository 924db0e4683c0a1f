"""Trunk on tiles, merging, head: every head gives what it gives of the whole image through the unchanged graph."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from export.heads import HEADS
from graphs.anysize.plan import EXTENTS, OWNED, Plan
from graphs.front import PIXELS
from tests.export.trunk import Trunk
from tests.graphs.anysize.tiled_heads import (
    BOUND,
    QUERIES,
    Classified,
    Pool,
    attend,
    compiled,
    positions,
    reasons,
    rules,
)
from tests.graphs.anysize.tiling import Tiled, errors, session


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
        spp=Classified("spp", levels=[1, 3]),
        spp_average=Classified("spp", levels=[3], kind="avg"),
        quadrants=Classified("quadrants"),
    )


@pytest.mark.parametrize("repeated", range(2))
def test_bins_of_a_pyramid_are_cut_by_the_whole_image(pyramids: Plan, rng: np.random.Generator, repeated: int) -> None:
    worst = errors(pyramids, rng)
    assert max(worst.values()) <= BOUND, worst


def attend_heads(x: Tensor) -> Tensor:
    """Two heads: (N,P,2,3) to (N,2,P,3)."""
    tokens = positions(x).unflatten(2, (2, 3)).transpose(1, 2)
    queries = QUERIES.to(x).unflatten(1, (2, 3)).transpose(0, 1)
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
    "covariance": covariance,
    "normalised_first": lambda x: nn.functional.normalize(x, dim=1).mean((2, 3)),
    "normalised_last": lambda x: nn.functional.normalize(x.mean((2, 3))).log_softmax(1),
    "weighed_by_a_reduction": lambda x: (x * torch.sigmoid(x.mean((2, 3), keepdim=True))).sum((2, 3)),
    "centred_on_nothing": lambda x: (x - 0.25).exp().mean((2, 3)),
    "channels_too": lambda x: torch.stack([x.mean((1, 2, 3)), x.flatten(1).mean(1), x.amax((1, 2, 3))], 1),
    "best_of_all": lambda x: x.flatten(1).topk(4, dim=1).values,
    "sum_of_rows": lambda x: x.sum(3, keepdim=True).sum(2).flatten(1),
}


@pytest.fixture(scope="module")
def others() -> Plan:
    return compiled(Trunk(), **OTHERS)


def features_of(plan: Plan, image: np.ndarray) -> Tensor:
    """Features (1,C,H,W) of a Trunk for a whole image: the plain graph's float32, as float64."""
    model = plan.plain.clone()
    relu = next(node for node in model.graph if node.op_type == "Relu")
    model.graph.outputs[:] = [relu.outputs[0]]
    return torch.from_numpy(session(model).run(None, {PIXELS: image[None]})[0]).double()


@pytest.mark.parametrize("repeated", range(3))
def test_other_heads_are_as_exact_as_in_float64(others: Plan, rng: np.random.Generator, repeated: int) -> None:
    # Not against the whole image in float32: ONNX Runtime adds up what is reduced over two axes at once, or over flattened
    # positions, with an error of its own, up to 2e-5 on maps of 250×250 (log_sum_exp, variance).
    def in_float64(image: np.ndarray) -> list[np.ndarray]:
        features = features_of(others, image)
        return [pool(features).numpy() for pool in OTHERS.values()]

    worst = errors(others, rng, most=300, oracle=in_float64)
    assert max(worst.values()) <= BOUND, worst
    assert {"sum", "max", "min", "exponential", "moments", "comoments", "topk"} == set(rules(others))


def gate_before_a_maximum(x: Tensor) -> Tensor:
    return (torch.sigmoid(x.mean((2, 3), keepdim=True)) * x).relu().amax((2, 3))


def third_moment(x: Tensor) -> Tensor:
    centred = x - x.mean((2, 3), keepdim=True)
    return (centred / (centred**2).mean((2, 3), keepdim=True).sqrt() ** 3).mean((2, 3))


def self_attention(x: Tensor) -> Tensor:
    tokens = positions(x)
    return ((tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens).mean(1)


def half_of_the_values(x: Tensor) -> Tensor:
    flat = x.flatten(2)
    return flat.topk(flat.shape[2] // 2, dim=2).values.mean(2)


NOT_TILED: dict[str, tuple[Pool, str]] = {
    "gate_before_a_maximum": (gate_before_a_maximum, "ReduceMean 'node_mean.*goes back into the feature map at Relu"),
    "third_moment": (third_moment, "ReduceMean .*goes back into the feature map at Div"),
    "self_attention": (self_attention, "MatMul .*relates positions of the map to each other"),
    "mean_of_a_maximum": (lambda x: x.amax(2).mean(2), "ReduceMean .*another reduction than the max"),
    "spread_from_the_mean": (lambda x: (x - x.mean((2, 3), keepdim=True)).abs().mean((2, 3)), "goes back .* at Abs"),
    "product_of_all": (lambda x: x.prod(3).prod(2), "ReduceProd .*parts do not merge"),
    "spread_over_the_map": (
        lambda x: (x.amax((2, 3), keepdim=True).expand_as(x) + x.square()).mean((2, 3)).exp(),
        "ReduceMax .*goes back into the feature map at Expand",
    ),
    "over_a_signed_maximum": (
        lambda x: ((x - 0.3) / (x - 0.3).amax((2, 3), keepdim=True)).pow(2.5).mean((2, 3)),
        "ReduceMax .*goes back into the feature map at Pow",
    ),
}
"""Each stops at a node of its own."""


def test_every_head_that_cannot_be_tiled_is_named() -> None:
    plan = compiled(Trunk(), **{name: pool for name, (pool, _) in NOT_TILED.items()})
    assert plan.ragged is not None
    assert len(plan.tiled_obstacles) == len(NOT_TILED), reasons(plan)
    for obstacle, (_, reason) in zip(plan.tiled_obstacles, NOT_TILED.values(), strict=True):
        assert re.search(reason, str(obstacle)), (reason, str(obstacle))


@pytest.mark.parametrize(
    ("pool", "reason"), [(half_of_the_values, "TopK .*depends on the image's size"), (lambda x: x, "a map")]
)
def test_what_cannot_be_batched_cannot_be_tiled(pool: Pool, reason: str) -> None:
    assert re.search(reason, reasons(compiled(Trunk(), logits=pool)))


def test_a_softmax_over_classes_is_no_reduction_over_space() -> None:
    plan = compiled(Trunk(), logits=lambda x: x.mean((2, 3)).softmax(1))
    assert rules(plan) == ["sum"]
    assert plan.tiled is not None
    assert [node.op_type for node in plan.tiled.head.graph][-1] == "Softmax"


def test_head_and_trunk_keep_to_their_contract() -> None:
    plan = compiled(Trunk(), logits=lambda x: x.mean((2, 3)), embedding=lambda x: torch.logsumexp(x, (2, 3)))
    assert plan.tiled is not None
    trunk, head = plan.tiled.trunk.graph, plan.tiled.head.graph
    arrays = [name for state in plan.tiled.states for name in state.names]
    assert [value.name for value in trunk.inputs] == [PIXELS, EXTENTS, OWNED]
    assert {value.name for value in trunk.outputs} == set(arrays)
    assert {value.name for value in head.inputs} == {EXTENTS, *arrays}
    assert [value.name for value in head.outputs] == ["out_logits", "out_embedding"]
    assert "Conv" not in {node.op_type for node in head}
    assert sum(node.op_type == "Conv" for node in trunk) == 1
    onnx.checker.check_model(ir.to_proto(plan.tiled.trunk))
    onnx.checker.check_model(ir.to_proto(plan.tiled.head))


def test_tiles_of_one_batch_are_independent(others: Plan, rng: np.random.Generator) -> None:
    trunk, count = Tiled(others).trunk, 3
    pixels = rng.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    extents = np.array([[0, 0, 200, 40], [16, 32, 90, 300], [8, 4, 31, 30]], np.int64)
    owned = np.array([[0, 0, 16, 40], [20, 36, 40, 60], [12, 8, 31, 30]], np.int64)
    together = trunk.run(None, {PIXELS: pixels, EXTENTS: extents, OWNED: owned})
    for index in range(count):
        one = slice(index, index + 1)
        alone = trunk.run(None, {PIXELS: pixels[one], EXTENTS: extents[one], OWNED: owned[one]})
        for output, mine, theirs in zip(trunk.get_outputs(), together, alone, strict=True):
            assert mine.shape[0] == count, output.name
            np.testing.assert_allclose(mine[one], theirs, rtol=1e-5, atol=1e-6, err_msg=output.name)

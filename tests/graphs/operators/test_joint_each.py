"""Poolings that see all channels, one by one: what each is for, its limits, and those that choose regions themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphs.operators.catalogue import find
from graphs.operators.regions.rmac import rmac
from graphs.operators.request import RegionParameters
from tests.claims import relative_error
from tests.graphs.operators import joint_reference
from tests.graphs.operators.evaluate import differentiate, evaluate
from tests.graphs.operators.joint_draws import C, D, K, L, tables, tensor


def test_covariance_converges_to_the_square_root(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, C, 200))
    values, vectors = np.linalg.eigh(np.cov(x[0], bias=True))
    root = (vectors * np.sqrt(values)) @ vectors.T
    errors = []
    for iterations in (3, 5, 10):
        got = evaluate("covariance", x, iterations=iterations, upper=False).reshape(C, C)
        errors.append(relative_error(got, root))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9
    upper = evaluate("covariance", x, iterations=10)[0, 0]
    assert relative_error(upper, root[np.triu_indices(C)]) < 1e-9


def test_covariance_does_not_see_a_shift_and_scales(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, C, L))
    y = evaluate("covariance", x)
    assert relative_error(evaluate("covariance", x + 100), y) < 1e-10
    assert relative_error(evaluate("covariance", 7 * x), 7 * y) < 1e-10
    assert relative_error(evaluate("covariance", np.tile(x, 3)), y) < 1e-10


def test_plain_bilinear(rng: np.random.Generator) -> None:
    x, (index, weight) = tensor("bilinear", rng), tables(rng)
    leaf = torch.tensor(x, requires_grad=True)
    expected = joint_reference.pooled("bilinear_plain", leaf, index, weight, {})
    assert relative_error(evaluate("bilinear", x, index, weight, normalize=False), expected.detach().numpy()) < 1e-10
    seed = rng.standard_normal(tuple(expected.shape))
    (slope,) = torch.autograd.grad(expected, leaf, torch.tensor(seed))
    assert relative_error(differentiate("bilinear", x, seed, index, weight, normalize=False), slope.numpy()) < 1e-8


def test_compact_bilinear_approximates_inner_products_of_bilinear_features(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, C, L)) + 1
    signs = {name: rng.choice([-1.0, 1.0], (40_000, C)) for name in ("first", "second")}
    (a,), (b,) = evaluate("compact_bilinear", x, normalize=False, **signs)
    (c,), (d,) = evaluate("bilinear", x, normalize=False)
    assert abs(a @ b - c @ d) < 0.1 * abs(c @ d)


def test_generalized_max_gives_every_cell_the_same_product(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, C, C))  # as many cells as channels: all products can be 1
    y = evaluate("generalized_max", x, regularization=1e-9)[0, 0]
    assert np.abs(y @ x[0] - 1).max() < 1e-3
    frequent = np.concatenate([x, np.repeat(x[..., :1], 100, axis=2)], axis=2)
    again = evaluate("generalized_max", frequent, regularization=1e-9)[0, 0]
    assert np.abs(again @ frequent[0] - 1).max() < 1e-3


def test_vlad_with_a_large_alpha_assigns_to_the_nearest(rng: np.random.Generator) -> None:
    x, centres = rng.standard_normal((1, C, L)), rng.standard_normal((K, C))
    nearest = ((x[0].T[:, None] - centres) ** 2).sum(2).argmin(1)
    rows = np.stack([(x[0].T[nearest == k] - centres[k]).sum(0) for k in range(K)])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths == 0, 1, lengths)
    got = evaluate("vlad", x, centres=centres, alpha=1e5)[0, 0]
    assert relative_error(got, (rows / np.linalg.norm(rows)).ravel()) < 1e-8


def test_attention_with_a_query_of_0_is_average(rng: np.random.Generator) -> None:
    x, (index, weight) = rng.standard_normal((2, C, L)), tables(rng)
    expected = evaluate("avg", x.reshape(-1, L), index, weight).reshape(2, C, -1).swapaxes(1, 2)
    got = evaluate("attention", x, index, weight, query=np.zeros((1, C)))
    assert relative_error(got, expected) < 1e-12


def test_attention_survives_large_scores(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, C, L)).astype(np.float32)
    query = rng.standard_normal((1, C)) * 1e6
    got = evaluate("attention", x, query=query)[0, 0]
    assert np.array_equal(got, x[0, :, (query.astype(np.float32) @ x[0]).argmax()])


def test_one_round_of_routing_gives_every_capsule_the_same_share(rng: np.random.Generator) -> None:
    x, transforms = rng.standard_normal((1, C, L)), rng.standard_normal((K, D, C))
    s = transforms @ x[0].sum(1) / K
    length = np.linalg.norm(s, axis=1, keepdims=True)
    got = evaluate("capsule", x, transforms=transforms, iterations=1)[0, 0]
    assert relative_error(got, (s * length / (1 + length**2)).ravel()) < 1e-12


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_routing_of_any_number_of_rounds(iterations: int, rng: np.random.Generator) -> None:
    x, (index, weight) = rng.standard_normal((1, C, L)), tables(rng)
    parameters = {"transforms": rng.standard_normal((K, D, C)), "iterations": iterations}
    expected = joint_reference.pooled("capsule", torch.tensor(x), index, weight, parameters).numpy()
    assert relative_error(evaluate("capsule", x, index, weight, **parameters), expected) < 1e-10


def test_crow_of_a_region_without_activity_is_0(rng: np.random.Generator) -> None:
    x = np.zeros((1, C, L))
    assert not evaluate("crow", x).any()
    x[0, 0] = rng.uniform(1, 2, L)  # the other channels are never active: they weigh 0, and this one ln 1
    assert not evaluate("crow", x).any()


def rmac_cells(plane: tuple[int, int], **parameters: Any) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    operator = find("rmac")
    assert operator.regions is not None
    system = operator.regions(plane, RegionParameters(), operator.parameters(**parameters))
    cells: list[np.ndarray] = [np.zeros(0, int)] * system.shape[0]
    for block in system.blocks(10**6):
        assert block.index is not None
        weight = np.ones(block.index.shape) if block.weight is None else block.weight
        rows = np.arange(system.shape[0])[block.rows]
        for row, index, present in zip(rows, block.index, weight > 0, strict=True):
            cells[row] = index[present]
    width = max(map(len, cells))
    index = np.stack([np.pad(row, (0, width - len(row))) for row in cells])
    weight = np.stack([np.arange(width) < len(row) for row in cells]).astype(float)
    return cells, index, weight


def test_rmac(rng: np.random.Generator) -> None:
    plane = (7, 11)
    x = rng.standard_normal((2, C, plane[0] * plane[1]))
    cells, index, weight = rmac_cells(plane)
    assert len(cells) == rmac(plane, 3).shape[0]
    leaf = torch.tensor(x, requires_grad=True)
    vectors = [torch.nn.functional.normalize(leaf[..., list(row)].amax(2), dim=1) for row in cells]
    expected = torch.nn.functional.normalize(sum(vectors[1:], vectors[0]), dim=1)[:, None]
    assert relative_error(evaluate("rmac", x, index, weight), expected.detach().numpy()) < 1e-10
    seed = rng.standard_normal((2, 1, C))
    (slope,) = torch.autograd.grad(expected, leaf, torch.tensor(seed))
    assert relative_error(differentiate("rmac", x, seed, index, weight), slope.numpy()) < 1e-8


def test_rmac_does_not_see_scale_and_nan_reaches_its_answer(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, C, 36))
    _, index, weight = rmac_cells((6, 6), scales=2, include_whole=False)
    y = evaluate("rmac", x, index, weight)
    assert relative_error(evaluate("rmac", x * 1e3, index, weight), y) < 1e-12
    x[0, 2, 7] = np.nan
    spoiled = evaluate("rmac", x, index, weight, nan="propagate")
    assert spoiled.shape == y.shape
    assert np.isnan(spoiled[0]).all()
    assert np.array_equal(spoiled[1], y[1])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_learned_regions(normalize: bool, weighted: bool, rng: np.random.Generator) -> None:
    x, masks = rng.standard_normal((6, L)), rng.uniform(0, 1, (K, L))
    masks[1] = 0  # a region of nothing
    mask = rng.uniform(0, 1, (1, L)) * rng.integers(0, 2, (1, L))
    index = np.arange(L)[None]
    weight = masks * mask if weighted else masks
    sums = x @ weight.T
    total = weight.sum(1)
    expected = sums / np.where(total == 0, 1, total) if normalize else sums
    tables = (index, mask) if weighted else (None, None)
    got = evaluate("learned_regions", x, *tables, masks=masks, normalize=normalize)
    assert relative_error(got, expected[:, None]) < 1e-10
    seed = rng.standard_normal(got.shape)
    slope = seed[:, 0] @ (weight / np.where(total == 0, 1, total)[:, None] if normalize else weight)
    back = differentiate("learned_regions", x, seed, *tables, masks=masks, normalize=normalize)
    assert relative_error(back, slope) < 1e-10

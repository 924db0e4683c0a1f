"""Poolings that see all channels, against their formulas in PyTorch, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from graphs.operators.catalogue import CATALOGUE, find
from graphs.operators.regions.rmac import rmac
from graphs.operators.request import RegionParameters
from tests.claims import relative_error
from tests.graphs.operators import joint_reference
from tests.graphs.operators.evaluate import differentiate, evaluate

C, D, H, K, L = 5, 6, 4, 3, 40

Draw = Callable[[np.random.Generator], dict[str, Any]]

JOINT: dict[str, Draw] = {
    "bilinear": lambda rng: {},
    "compact_bilinear": lambda rng: {name: rng.choice([-1.0, 1.0], (D, C)) for name in ("first", "second")},
    "covariance": lambda rng: {},
    "generalized_max": lambda rng: {"regularization": float(rng.uniform(0.5, 2))},
    "attention": lambda rng: {"query": rng.standard_normal((2, C))},
    "mil": lambda rng: {"hidden": rng.standard_normal((H, C)), "score": rng.standard_normal((2, H))},
    "gated_mil": lambda rng: {
        "hidden": rng.standard_normal((H, C)),
        "gate": rng.standard_normal((H, C)),
        "score": rng.standard_normal((1, H)),
    },
    "simpool": lambda rng: {"gamma": float(rng.uniform(1, 3))},
    "attentive_statistics": lambda rng: {
        "hidden": rng.standard_normal((H, C)),
        "offset": rng.standard_normal(H),
        "score": rng.standard_normal((1, H)),
    },
    "vlad": lambda rng: {"centres": rng.standard_normal((K, C)), "alpha": float(rng.uniform(0.1, 2))},
    "fisher": lambda rng: {
        "means": rng.standard_normal((K, C)),
        "sigmas": rng.uniform(0.5, 2, (K, C)),
        "priors": rng.dirichlet(np.ones(K)),
    },
    "capsule": lambda rng: {"transforms": rng.standard_normal((K, D, C))},
    "crow": lambda rng: {"a": float(rng.uniform(1, 3)), "b": float(rng.uniform(1, 3))},
}

named = pytest.mark.parametrize("name", JOINT)


def tables(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four regions of 8 cells: soft weights, three absent, only one present, none at all."""
    index, weight = rng.integers(0, L, (4, 8)), rng.uniform(0.2, 1, (4, 8))
    weight[1, [0, 3, 7]] = 0
    weight[2, 1:] = 0
    weight[3] = 0
    return index, weight


def tensor(name: str, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((2, C, L))
    if name == "crow":  # half of the channels are not active, but nowhere are none: PyTorch's derivative of 0^p is NaN
        x = np.maximum(x, 0)
        x[:, 0] += 0.5
    return x


def test_every_joint_operator_is_tested_here() -> None:
    assert {name for name, operator in CATALOGUE.items() if operator.joint and not operator.together} == set(JOINT)


@named
def test_formula(name: str, rng: np.random.Generator) -> None:
    x, (index, weight), parameters = tensor(name, rng), tables(rng), JOINT[name](rng)
    if name == "crow":
        index, weight = index[:2], weight[:2]
    expected = joint_reference.pooled(name, torch.tensor(x), index, weight, parameters).numpy()
    got = evaluate(name, x, index, weight, **parameters)
    assert np.isfinite(expected[:, :2]).all()
    if name == "covariance":
        assert np.abs(got[:, 2]).max() < 1e-14  # one cell does not vary, but for the rounding of its mean
        expected[:, 2] = got[:, 2]
    assert relative_error(got, expected) < 1e-10


@named
def test_formula_over_the_whole_plane_without_a_table(name: str, rng: np.random.Generator) -> None:
    x, parameters = tensor(name, rng), JOINT[name](rng)
    expected = joint_reference.pooled(name, torch.tensor(x), [np.arange(L)], [np.ones(L)], parameters).numpy()
    assert relative_error(evaluate(name, x, **parameters), expected) < 1e-10


@named
def test_formula_in_float32(name: str, rng: np.random.Generator) -> None:
    x, (index, weight), parameters = tensor(name, rng), tables(rng), JOINT[name](rng)
    double = evaluate(name, x.astype(np.float32).astype(np.float64), index, weight, **parameters)
    single = evaluate(name, x.astype(np.float32), index, weight, **parameters)
    assert single.dtype == np.float32
    assert relative_error(single, double) < 1e-4


@named
def test_gradient(name: str, rng: np.random.Generator) -> None:
    x, (index, weight), parameters = tensor(name, rng), tables(rng), JOINT[name](rng)
    index, weight = index[:2], weight[:2]
    for case in ((index, weight), (index, None), (None, None)):
        leaf = torch.tensor(x, requires_grad=True)
        cells = [np.arange(L)] if case[0] is None else index
        full = [np.ones(len(row)) for row in cells] if case[1] is None else weight
        y = joint_reference.pooled(name, leaf, cells, full, parameters)
        seed = rng.standard_normal(tuple(y.shape))
        (expected,) = torch.autograd.grad(y, leaf, torch.tensor(seed))
        got = differentiate(name, x, seed, *case, **parameters)
        assert relative_error(got, expected.numpy()) < 1e-8


@named
def test_what_stands_in_absent_cells_does_not_count(name: str, rng: np.random.Generator) -> None:
    x, (index, weight), parameters = tensor(name, rng), tables(rng), JOINT[name](rng)
    expected = evaluate(name, x, index, weight, **parameters)
    assert not expected[:, 3].any()
    seed = rng.standard_normal(expected.shape)
    slope = differentiate(name, x, seed, index, weight, **parameters)
    index = np.where(weight > 0, index, L)
    for odd in (np.nan, np.inf, -1e300):
        spoiled = np.concatenate([x, np.full((2, C, 1), odd)], axis=2)
        assert np.array_equal(evaluate(name, spoiled, index, weight, **parameters), expected)
        back = differentiate(name, spoiled, seed, index, weight, **parameters)
        assert np.isfinite(back).all()
        assert not back[..., L].any()
        assert np.allclose(back[..., :L], slope, rtol=1e-12, atol=1e-12 * np.abs(slope).max())


@named
def test_omitted_nan_takes_the_cell_out_of_its_sample(name: str, rng: np.random.Generator) -> None:
    x, parameters = tensor(name, rng), JOINT[name](rng)
    expected = np.stack([evaluate(name, x[:1, :, 1:], **parameters)[0], evaluate(name, x[1:], **parameters)[0]])
    x[0, rng.integers(C), 0] = np.nan
    assert relative_error(evaluate(name, x, nan="omit", **parameters), expected) < 1e-10
    spoiled = evaluate(name, x, nan="propagate", **parameters)
    assert np.isnan(spoiled[0]).all()
    assert relative_error(spoiled[1], expected[1]) < 1e-10
    slope = differentiate(name, x, np.ones_like(expected), nan="omit", **parameters)
    assert np.isfinite(slope).all()
    assert not slope[0, :, 0].any()


@named
def test_the_order_of_cells_does_not_matter(name: str, rng: np.random.Generator) -> None:
    x, parameters = tensor(name, rng), JOINT[name](rng)
    shuffled = x[..., rng.permutation(L)]
    assert relative_error(evaluate(name, shuffled, **parameters), evaluate(name, x, **parameters)) < 1e-10


@named
def test_equal_cells_have_finite_gradients(name: str, rng: np.random.Generator) -> None:
    parameters = JOINT[name](rng)
    for x in (np.zeros((1, C, 9)), np.ones((1, C, 9))):
        y = evaluate(name, x, **parameters)
        assert np.isfinite(y).all()
        assert np.isfinite(differentiate(name, x, np.ones_like(y), **parameters)).all()


@pytest.mark.parametrize("name", ["bilinear", "compact_bilinear", "covariance", "capsule", "crow", "generalized_max"])
def test_large_values_do_not_overflow(name: str, rng: np.random.Generator) -> None:
    x, parameters = tensor(name, rng), JOINT[name](rng)
    x = (x * 1e20).astype(np.float32)  # squares are far beyond float32
    if name == "capsule":
        parameters["iterations"] = 1
    double = evaluate(name, x.astype(np.float64), **parameters)
    single = evaluate(name, x, **parameters)
    assert relative_error(single, double) < 1e-4
    assert np.isfinite(differentiate(name, x, np.ones_like(single), **parameters)).all()


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

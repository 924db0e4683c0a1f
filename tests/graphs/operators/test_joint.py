"""Poolings that see all channels, against their formulas in PyTorch, forwards and backwards; and what holds of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphs.operators.catalogue import CATALOGUE
from tests.claims import relative_error
from tests.graphs.operators import joint_reference
from tests.graphs.operators.evaluate import differentiate, evaluate
from tests.graphs.operators.joint_draws import JOINT, C, L, tables, tensor

named = pytest.mark.parametrize("name", JOINT)


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

"""A random search of what can be asked: every draw against the formulas in float64, and against torch where torch has the pooling.

POOL_DRAWS says how many draws there are of forward passes, and half as many of gradients; a failure shrinks to a minimal request
and is printed with what reproduces it.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.runtime.pooling.prepared import Pooled
from tests import reference_windows as reference
from tests.service.runtime.pooling.conftest import Pool
from tests.service.runtime.pooling.draws import Draw, draws

DRAWS = int(os.environ.get("POOL_DRAWS", "1400"))
BOUNDS = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}
"""Largest error relative to the magnitude of what is pooled."""
EXACT = {"max", "min"}


def search(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=False,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@search(DRAWS)
@given(drawn=draws(), extras=st.booleans())
def test_pooling_is_its_formula(pool: Pool, drawn: Draw, extras: bool) -> None:
    wanted = {"return_counts": True} if extras else {}
    if extras and drawn.op in EXACT:
        wanted["return_indices"] = True
    if drawn.samples is None:
        with pytest.raises(InvalidParameter, match="larger than the plane"):
            pool(drawn.x, drawn.op, arrays=drawn.arrays, **drawn.parameters)
        return
    pooled = pool(drawn.x, drawn.op, arrays=drawn.arrays, **drawn.parameters, **wanted)
    shape = drawn.samples[0].shape if drawn.samples else pooled.tensor.shape[len(drawn.lead) :]
    if not drawn.samples:
        assert pooled.tensor.size == 0
        return
    got = drawn.to_rows(pooled.tensor, shape)
    nan = drawn.parameters.get("nan", "propagate")
    if drawn.rows.dtype.kind in "iu" and drawn.op in {"max", "min", "sum"}:
        for row, regions in enumerate(drawn.samples):
            expected = reference.pool_whole_numbers(drawn.op, drawn.rows[row : row + 1], regions)[0]
            assert got.dtype == expected.dtype
            assert (got[row] == expected).all(), (got[row], expected)
    else:
        wide = drawn.rows.dtype.kind in "iu" or (drawn.op == "sum" and drawn.rows.dtype == np.float16)
        dtype = np.dtype("float32") if wide else drawn.rows.dtype
        assert got.dtype == dtype
        expected, scale = _expected(drawn, nan)
        assert_close(got, expected, 0.0 if drawn.op in EXACT else BOUNDS[dtype.name] * scale)
    if drawn.torch and drawn.rows.dtype.kind == "f" and nan == "propagate":
        _compare_with_torch(drawn, got, pooled, shape)
    if extras:
        _compare_counts(drawn, pooled)
        if drawn.op in EXACT:
            _compare_indices(drawn, got, pooled, shape)


@search(DRAWS // 2)
@given(drawn=draws(gradient=True), seed=st.integers(0, 2**32 - 1))
def test_gradient_is_autograd_s(pool: Pool, drawn: Draw, seed: int) -> None:
    if not drawn.samples:
        return
    rng = np.random.default_rng(seed)
    answer = pool(drawn.x, drawn.op, arrays=drawn.arrays, **drawn.parameters).tensor
    grad_output = rng.standard_normal(answer.shape).astype(answer.dtype)
    got = pool(drawn.x, drawn.op, "gradient", drawn.arrays | {"grad_output": grad_output}, **drawn.parameters).tensor
    assert got.dtype == drawn.x.dtype
    assert got.shape == drawn.x.shape
    got = drawn.to_rows(got, drawn.plane)
    shape = drawn.samples[0].shape
    x = torch.tensor(drawn.rows.astype(np.float64), requires_grad=True)
    seeds = torch.tensor(drawn.to_rows(grad_output, shape).astype(np.float64))
    y = torch.cat([_pool_row(drawn, x, row, "propagate")[0] for row in range(len(x))])
    (expected,) = torch.autograd.grad((y * seeds).sum() + 0 * x.sum(), x, allow_unused=True, materialize_grads=True)
    largest = float(expected.abs().max()) + float(seeds.abs().max())
    if drawn.op not in {"max", "min", "avg", "sum", "range"}:
        largest *= 1 + float(x.detach().abs().max())
    assert_close(got, expected.numpy(), np.full(got.shape, 4 * BOUNDS[drawn.x.dtype.name] * largest))
    if drawn.torch and drawn.op in {"max", "avg"}:
        y = _torch_pool(drawn, x).reshape(seeds.shape)
        (own,) = torch.autograd.grad((y * seeds).sum(), x)
        assert_close(got, own.numpy(), np.full(got.shape, 4 * BOUNDS[drawn.x.dtype.name] * largest))


def assert_close(got: np.ndarray, expected: np.ndarray, bound: np.ndarray | float) -> None:
    """Equal where not finite; elsewhere within the bound, and what the dtype's smallest number cannot say."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(got.dtype)
    wrong = np.isnan(got) != np.isnan(rounded)
    finite = np.isfinite(rounded) & np.isfinite(got)
    with np.errstate(invalid="ignore", over="ignore"):
        far = np.abs(got.astype(np.float64) - expected) > bound + np.finfo(got.dtype).smallest_subnormal
    wrong |= np.where(finite, far, (got != rounded) & ~np.isnan(rounded))
    assert not wrong.any(), f"got {got[wrong][:5]}, expected {expected[wrong][:5]}"


def _pool_row(drawn: Draw, x: torch.Tensor, row: int, nan: str) -> tuple[torch.Tensor, torch.Tensor]:
    assert drawn.samples is not None
    return reference.pool(drawn.op, x[row : row + 1], drawn.samples[row], nan=nan, **drawn.own)


def _expected(drawn: Draw, nan: str) -> tuple[np.ndarray, np.ndarray]:
    x = torch.tensor(drawn.rows.astype(np.float64))
    assert drawn.samples is not None
    if all(regions is drawn.samples[0] for regions in drawn.samples):
        y, scale = reference.pool(drawn.op, x, drawn.samples[0], nan=nan, **drawn.own)
    else:
        y, scale = map(torch.cat, zip(*[_pool_row(drawn, x, row, nan) for row in range(len(x))], strict=True))
    return y.numpy(), scale.numpy()


def _torch_pool(drawn: Draw, x: torch.Tensor, **more: bool) -> Any:
    """torch's own windows or adaptive grid over rows."""
    kind = ("adaptive_" if "output_size" in drawn.torch else "") + drawn.op
    function = getattr(F, f"{kind}_pool{drawn.axes}d")
    return function(x.reshape(-1, 1, *drawn.plane), **drawn.torch, **more)


def _compare_with_torch(drawn: Draw, got: np.ndarray, pooled: Pooled, shape: tuple[int, ...]) -> None:
    if drawn.op not in {"max", "avg"}:
        return
    x = torch.tensor(drawn.rows.astype(np.float64))
    _, scale = _expected(drawn, "propagate")
    if drawn.op == "avg":
        y = _torch_pool(drawn, x)
    else:
        y, indices = _torch_pool(drawn, x, return_indices=True)
        if pooled.indices is not None and not np.isnan(drawn.rows).any():
            assert (drawn.to_rows(pooled.indices, shape) == indices.reshape(got.shape).numpy()).all()
    assert_close(got, y.reshape(got.shape).numpy(), BOUNDS[got.dtype.name] * scale if drawn.op == "avg" else 0.0)


def _compare_counts(drawn: Draw, pooled: Pooled) -> None:
    assert pooled.counts is not None
    assert drawn.samples is not None
    lines = pooled.counts.reshape(-1, *drawn.samples[0].shape)
    for row, regions in enumerate(drawn.samples):
        assert (lines[row * len(lines) // len(drawn.samples)] == reference.counts(regions)).all()


def _compare_indices(drawn: Draw, got: np.ndarray, pooled: Pooled, shape: tuple[int, ...]) -> None:
    """Each index is the first cell of its region that has the value; NaN, where it propagates, is the most extreme of all."""
    assert pooled.indices is not None
    assert drawn.samples is not None
    indices = drawn.to_rows(pooled.indices, shape)
    for row, regions in enumerate(drawn.samples):
        x = drawn.rows[row]
        for place, region in enumerate(regions.regions):
            cells = [c for c, w in zip(region.cells, region.weights, strict=True) if w > 0]
            value = got[row, place]
            same = [c for c in cells if x[c] == value or (np.isnan(value) and np.isnan(x[c]))]
            if not cells or (drawn.parameters.get("nan") == "omit" and all(np.isnan(x[c]) for c in cells)):
                continue
            index = indices[row, place]
            if np.isnan(value):
                assert index in cells
            else:
                assert index == same[0], (index, same, cells)

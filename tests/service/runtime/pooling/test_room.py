"""Operators that see all channels, through the executor: the answer's shape, its gradient, and bounds known beforehand."""

from __future__ import annotations

import time

import numpy as np
import pytest

from service.errors import InvalidTensor, PayloadTooLarge
from service.runtime.pooling import prepared
from service.runtime.pooling.pooler import Action, Pooler
from service.settings import Settings
from tests.claims import relative_error


@pytest.fixture(scope="module")
def pooler() -> Pooler:
    return Pooler(Settings(), "cpu")


def run(
    pooler: Pooler, action: Action, op: str, x: np.ndarray, parameters: dict[str, object], **arrays: np.ndarray
) -> np.ndarray:
    return pooler.prepare(action, op, parameters, arrays, x.shape, x.dtype).run(x, time.monotonic() + 60).tensor


def test_bilinear_windows_are_products_of_channels(pooler: Pooler, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 8, 6))
    y = run(pooler, "pool", "bilinear", x, {"kernel": 2, "normalize": False})
    windows = x.reshape(2, 3, 4, 2, 3, 2)
    expected = np.einsum("ncahbw,ndahbw->ncdab", windows, windows).reshape(2, 9, 4, 3) / 4
    assert relative_error(y, expected) < 1e-12


def test_rmac_answers_once_for_all_of_its_regions(pooler: Pooler, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 9, 12))
    y = run(pooler, "pool", "rmac", x, {})
    assert np.allclose(np.linalg.norm(y.reshape(2, 4), axis=1), 1)
    one = run(pooler, "pool", "rmac", x, {"scales": 1})  # the plane, and two squares of side 9
    vectors = [x[..., part].max((2, 3)) for part in (slice(None), slice(0, 9), slice(3, 12))]
    total = sum(v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    assert relative_error(one.reshape(2, 4), total / np.linalg.norm(total, axis=1, keepdims=True)) < 1e-6


def test_runs_in_small_pieces_give_the_same(
    pooler: Pooler, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rng.standard_normal((3, 4, 10, 10))
    centres = rng.standard_normal((5, 4))
    whole = run(pooler, "pool", "vlad", x, {"kernel": 3, "stride": 1}, centres=centres)
    seed = rng.standard_normal(whole.shape)
    slope = run(pooler, "gradient", "vlad", x, {"kernel": 3, "stride": 1}, centres=centres, grad_output=seed)
    monkeypatch.setattr(prepared, "RUN_CELLS", 200)
    assert relative_error(run(pooler, "pool", "vlad", x, {"kernel": 3, "stride": 1}, centres=centres), whole) < 1e-12
    pieces = run(pooler, "gradient", "vlad", x, {"kernel": 3, "stride": 1}, centres=centres, grad_output=seed)
    assert relative_error(pieces, slope) < 1e-12


def test_answers_of_too_many_numbers_are_refused_beforehand(rng: np.random.Generator) -> None:
    pooler = Pooler(Settings(max_tensor_elements=10_000), "cpu")
    x = rng.standard_normal((1, 101, 1, 1))
    with pytest.raises(PayloadTooLarge, match="10201"):
        run(pooler, "pool", "bilinear", x, {})
    assert run(pooler, "pool", "bilinear", x[:, :100], {}).shape[1] == 10_000


def test_weights_of_another_width_are_refused(pooler: Pooler, rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 4, 5, 5))
    with pytest.raises(InvalidTensor, match=r"query: expected the shape \[Q, C\] with C = 4"):
        run(pooler, "pool", "attention", x, {}, query=np.ones((1, 3)))
    with pytest.raises(InvalidTensor, match="L = 25"):
        run(pooler, "pool", "learned_regions", x, {}, masks=np.ones((2, 24)))

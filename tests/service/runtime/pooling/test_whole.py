"""Small windows pooled in one go, and in arrays that stay: as NumPy has them, run after run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs.operators.native import compose_native
from graphs.operators.regions.windows import window_geometry
from service.runtime.pooling import sessions
from service.runtime.pooling.pooler import Pooler
from service.runtime.pooling.whole import Whole
from service.runtime.session import Session
from service.settings import Settings

SHAPE = (3, 2, 4, 6)


def whole(dtype: str) -> Whole:
    graph = compose_native("max", window_geometry(SHAPE[-2:], 2), dtype, count_include_pad=True)
    return Whole(Session(graph, provider="cpu"), (6, 1, 4, 6), (3, 2, 2, 3), np.dtype(dtype))


def maximum(x: np.ndarray) -> np.ndarray:
    maxima: np.ndarray = x.reshape(3, 2, 2, 2, 3, 2).max((3, 5))
    return maxima


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_that_stay_hold_the_last_answer(dtype: str, rng: np.random.Generator) -> None:
    fixed = whole(dtype).fixed()
    assert fixed is not None
    for _ in range(5):
        x = rng.normal(size=SHAPE).astype(dtype)
        fixed.numbers[:] = x.reshape(-1)
        fixed.run()
        assert fixed.tensor.dtype == x.dtype
        assert np.array_equal(fixed.tensor, maximum(x))


def test_two_of_a_kind_do_not_share_their_arrays(rng: np.random.Generator) -> None:
    made = whole("float32")
    one, other = made.fixed(), made.fixed()
    assert one is not None
    assert other is not None
    x = rng.normal(size=SHAPE).astype(np.float32)
    for fixed, numbers in ((one, x), (other, -x)):
        fixed.numbers[:] = numbers.reshape(-1)
        fixed.run()
    assert np.array_equal(one.tensor, maximum(x))
    assert np.array_equal(other.tensor, maximum(-x))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30])
def test_what_the_kernels_may_not_take_is_left(odd: float, rng: np.random.Generator) -> None:
    x = rng.normal(size=SHAPE).astype(np.float32)
    made = whole("float32")
    pooled = made.run(x)
    assert pooled is not None
    assert np.array_equal(pooled, maximum(x))
    x[1, 0, 2, 3] = odd
    assert made.run(x) is None


def test_integers_have_no_arrays_that_stay(rng: np.random.Generator) -> None:
    made = whole("uint8")
    x = rng.integers(0, 256, SHAPE).astype(np.uint8)
    pooled = made.run(x)
    assert pooled is not None
    assert np.array_equal(pooled, maximum(x))
    assert made.fixed() is None


def test_one_thread_pools_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    class Watched(Session):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            threads.append(named["threads"])
            super().__init__(*arguments, **named)

    monkeypatch.setattr(sessions, "Session", Watched)
    pooler = Pooler(Settings(models=Path()), "cpu")
    for shape in ((2, 512, 512), (2, 512, 514)):
        x = np.ones(shape, np.float32)
        course = pooler.prepare("pool", "max", {"kernel": 2}, {}, shape, x.dtype)
        assert course.run(x, math.inf).tensor.shape == (2, 256, shape[-1] // 2)
    assert threads == [1, 0]  # 0: as many as there are cores

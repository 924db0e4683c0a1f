"""What is refused before any work, and the sessions that are kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import InvalidParameter, InvalidTensor, PayloadTooLarge
from service.runtime.pooling.pooler import Pooler
from service.settings import Settings
from tests.service.runtime.pooling.conftest import Pool

# Refusals


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"kernel": 10**9}, "larger than the plane's 4"),
        ({"kernel": 10**12}, "kernel"),
        ({"kernel": 0}, "kernel"),
        ({"kernel": 2, "stride": 0}, "stride"),
        ({"kernel": 2, "dilation": 0}, "dilation"),
        ({"kernel": 2, "dilation": 10**9}, "larger than the plane"),
        ({"kernel": 2, "padding": 2}, "at most half the kernel of 2, got 2"),
        ({"kernel": 3, "padding": -1}, "padding"),
        ({"kernel": [2, 2, 2]}, "kernel: .*2"),
        ({"kernel": 2, "divisor_override": 0}, "divisor_override"),
        ({"kernel": 2, "padding": "same", "ceil_mode": True}, "ceil_mode"),
        ({"kernel": 2, "output_size": 2}, "one way of naming regions, got kernel and output_size"),
        ({"stride": 2}, "stride: only with kernel"),
        ({"output_size": 10**9}, "output_size|at most"),
        ({"levels": [10**9]}, "at most"),
        ({"p": 3}, "unknown parameter 'p' of 'avg'"),
        ({"nan": "ignore"}, "nan"),
        ({"return_indices": True}, "return_indices"),
        ({"spatial": 4}, "spatial"),
    ],
)
def test_bad_parameters_are_refused_before_work(pooler: Pooler, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises((InvalidParameter, PayloadTooLarge), match=says):
        pooler.prepare("pool", "avg", parameters, {}, (4, 4), np.dtype("float32"))


def test_an_unknown_operator_names_the_nearest(pooler: Pooler) -> None:
    with pytest.raises(InvalidParameter, match="max"):
        pooler.prepare("pool", "maxx", {}, {}, (4, 4), np.dtype("float32"))


@pytest.mark.parametrize("labels", [np.zeros((4, 5), np.int64), np.full((4, 4), 0.5)])
def test_labels_that_do_not_fit_are_refused(pooler: Pooler, labels: np.ndarray) -> None:
    with pytest.raises((InvalidParameter, InvalidTensor), match="labels"):
        pooler.prepare("pool", "avg", {}, {"labels": labels}, (4, 4), np.dtype("float32"))


def test_too_many_labels_are_refused(pooler: Pooler) -> None:
    labels = np.full((4, 4), 2**40)
    with pytest.raises((InvalidParameter, PayloadTooLarge)):
        pooler.prepare("pool", "avg", {}, {"labels": labels}, (4, 4), np.dtype("float32"))


def test_an_axis_without_cells_is_refused(pooler: Pooler) -> None:
    with pytest.raises(InvalidTensor, match="at least one cell"):
        pooler.prepare("pool", "max", {}, {}, (2, 0, 4), np.dtype("float32"))


def test_work_beyond_its_limit_is_refused() -> None:
    small = Pooler(Settings(max_pool_cells=10_000), "cpu")
    with pytest.raises(PayloadTooLarge, match="at most 10000 cells in all"):
        small.prepare("pool", "avg", {"kernel": 51, "stride": 1, "padding": 25}, {}, (100, 100), np.dtype("float32"))


# Sessions


def test_a_repeated_request_finds_its_session(rng: np.random.Generator) -> None:
    pooler = Pooler(Settings(), "cpu")
    x = rng.standard_normal((2, 8, 8)).astype(np.float32)
    for size in (8, 8, 8):
        course = pooler.prepare("pool", "lp", {"p": 2, "kernel": 2}, {}, (2, size, size), x.dtype)
        course.run(x, 1e12)
    assert (pooler.sessions.hits, pooler.sessions.misses) == (2, 1)
    other = pooler.prepare("pool", "lp", {"p": 2.5, "output_size": 3}, {}, x.shape, x.dtype)
    other.run(x, 1e12)
    assert pooler.sessions.misses <= 2  # exponents and sizes are inputs of the graph


def test_sessions_are_bounded(rng: np.random.Generator) -> None:
    pooler = Pooler(Settings(max_sessions=16), "cpu")
    x = rng.standard_normal((2, 24, 24)).astype(np.float32)
    for kernel in range(1, 21):
        expected = torch.nn.functional.max_pool2d(torch.tensor(x), kernel).numpy()
        got = pooler.prepare("pool", "max", {"kernel": kernel}, {}, x.shape, x.dtype).run(x, 1e12).tensor
        assert (got == expected).all()
    assert len(pooler.sessions) == 16
    assert pooler.sessions.misses == 20


def test_parameters_of_a_query_are_those_of_json(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 9, 9)).astype(np.float32)
    query = {"kernel": "3,2", "stride": "2", "padding": "1,0", "ceil_mode": "true", "count_include_pad": "false"}
    body = json.loads(
        '{"kernel": [3, 2], "stride": 2, "padding": [1, 0], "ceil_mode": true, "count_include_pad": false}'
    )
    assert (pool(x, "avg", **query).tensor == pool(x, "avg", **body).tensor).all()

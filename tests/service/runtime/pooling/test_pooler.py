"""What every operator gets from the executor: dtypes, axes, layouts, masks, segments, boxes, NaN."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from service.errors import InvalidParameter, InvalidTensor
from tests.claims import relative_error
from tests.service.runtime.pooling.conftest import Pool
from tests.service.runtime.pooling.draws import DTYPES

WHOLE_NUMBERS = [name for name in DTYPES if "int" in name]


# Numbers


@pytest.mark.parametrize("dtype", WHOLE_NUMBERS)
@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("windows", [{}, {"kernel": 2}, {"output_size": 3}])
def test_extremes_of_integers_are_exact_up_to_the_ends(
    pool: Pool, dtype: str, op: str, windows: dict[str, int]
) -> None:
    ends = np.iinfo(dtype)
    x = np.array([[ends.max, ends.max - 1], [ends.min, ends.min + 1]], dtype)
    got = pool(x, op, **windows).tensor
    assert got.dtype == x.dtype
    assert int(getattr(got, op)()) == (ends.max if op == "max" else ends.min)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_numbers_that_differ_in_their_upper_half_only(pool: Pool, dtype: str, rng: np.random.Generator) -> None:
    """ONNX Runtime's own ReduceMax of int64 fails here."""
    x = rng.integers(0, 2**34, (50, 8)).astype(dtype)
    assert (pool(x, "max", spatial=1).tensor == x.max(1)).all()
    assert (pool(x, "min", spatial=1).tensor == x.min(1)).all()


@pytest.mark.parametrize("dtype", WHOLE_NUMBERS)
def test_sums_of_integers_are_exact(pool: Pool, dtype: str, rng: np.random.Generator) -> None:
    ends = np.iinfo(dtype)
    most = 64 if ends.bits == 64 else 1
    x = rng.integers(ends.min // most, ends.max // most, (3, 5, 10), dtype=dtype)
    got = pool(x, "sum").tensor
    assert got.dtype == (np.uint64 if dtype == "uint64" else np.int64)
    assert got.tolist() == [sum(int(v) for v in plane.ravel()) for plane in x]


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**62), ("int64", -(2**62) - 1), ("uint64", 2**63)])
def test_a_sum_that_would_wrap_is_refused(pool: Pool, dtype: str, value: int) -> None:
    with pytest.raises(InvalidTensor, match="fits 64 bits"):
        pool(np.full((2, 2), value, dtype), "sum")


def test_weights_count_in_what_a_sum_may_reach(pool: Pool) -> None:
    x = np.full((1, 2), 2**61, np.int64)
    with pytest.raises(InvalidTensor, match="fits 64 bits"):
        pool(x, "sum", arrays={"mask": np.array([[2.0, 2.0]])})
    assert int(pool(x, "sum", arrays={"mask": np.array([[2.0, 1.0]])}).tensor) == 3 * 2**61


def test_fractional_weights_of_integers(pool: Pool) -> None:
    x, mask = np.array([[7, 9]]), np.array([[0.5, 0.0]])
    assert int(pool(x, "max", arrays={"mask": mask}).tensor) == 7  # there is a weight, so the cell counts
    assert float(pool(x, "avg", arrays={"mask": mask}).tensor) == 7
    with pytest.raises(InvalidTensor, match="whole weights"):
        pool(x, "sum", arrays={"mask": mask})


@pytest.mark.parametrize("dtype", WHOLE_NUMBERS)
def test_averages_of_integers_are_float32(pool: Pool, dtype: str, rng: np.random.Generator) -> None:
    x = rng.integers(0, 100, (2, 6, 6)).astype(dtype)
    got = pool(x, "avg", kernel=2).tensor
    assert got.dtype == np.float32
    assert relative_error(got, x.astype(np.float64).reshape(2, 3, 2, 3, 2).mean((2, 4))) < 1e-7


def test_float64_is_computed_in_float64(pool: Pool, rng: np.random.Generator) -> None:
    x = 1e6 + rng.standard_normal((2, 30, 30))
    assert relative_error(pool(x, "avg").tensor, x.mean((1, 2))) < 1e-14
    assert relative_error(pool(x, "avg", kernel=3).tensor, x.reshape(2, 10, 3, 10, 3).mean((2, 4))) < 1e-14


def test_float16_is_added_in_float32(pool: Pool) -> None:
    x = np.full((1, 100, 100), 1000, np.float16)  # the sum is 1e7, beyond float16
    assert pool(x, "avg").tensor.tolist() == [1000]
    assert (pool(x, "avg", kernel=50).tensor == 1000).all()


def test_large_planes_do_not_drift(pool: Pool, rng: np.random.Generator) -> None:
    x = (1000 + rng.standard_normal((1, 1024, 1024))).astype(np.float32)
    assert relative_error(pool(x, "avg").tensor, x.astype(np.float64).mean((1, 2))) < 1e-7


# Axes


@pytest.mark.parametrize("op", ["max", "avg", "std"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_channels_last_is_channels_first_moved(pool: Pool, op: str, axes: int, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 5, *(6, 7, 4)[:axes]))
    for regions in ({"kernel": 2}, {"output_size": 2}, {}):
        first = pool(x, op, spatial=axes, **regions).tensor
        last = pool(np.moveaxis(x, 1, -1), op, spatial=axes, layout="channels_last", **regions).tensor
        assert (np.moveaxis(first, 1, -1) == last).all()


def test_groups_are_maxout(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 12, 3, 4)).astype(np.float32)
    expected = torch.tensor(x).view(2, 4, 3, 3, 4).amax(2).numpy()
    assert (pool(x, "max", groups=4).tensor == expected).all()
    last = pool(np.moveaxis(x, 1, -1), "max", groups=4, layout="channels_last").tensor
    assert (np.moveaxis(last, -1, 1) == expected).all()


def test_groups_that_do_not_divide_the_channels_are_refused(pool: Pool) -> None:
    with pytest.raises(InvalidTensor, match="divisor of the 5 channels, got 2"):
        pool(np.zeros((1, 5, 2, 2), np.float32), "max", groups=2)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 8, 8), (2, 0, 8, 8)])
@pytest.mark.parametrize(
    "regions", [{"kernel": 2}, {"output_size": 4}, {"kernel": 2, "ceil_mode": True, "dilation": 1}]
)
def test_no_samples_give_no_samples(pool: Pool, shape: tuple[int, ...], regions: dict[str, Any]) -> None:
    for op in ("max", "avg", "std"):
        assert pool(np.zeros(shape, np.float32), op, **regions).tensor.shape == (*shape[:-2], 4, 4)


def test_a_vector_a_plane_and_one_cell(pool: Pool) -> None:
    assert pool(np.float32([1, 5, 2, 4]), "max", kernel=2).tensor.tolist() == [5, 4]
    assert pool(np.float32([[7]]), "max", kernel=1).tensor.tolist() == [[7]]
    assert pool(np.float32([[7]]), "avg", output_size=2).tensor.tolist() == [[7, 7], [7, 7]]


# Regions with data


def test_each_sample_has_its_own_mask(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 2, 4, 5))
    mask = rng.random((3, 4, 5)) < 0.5
    pooled = pool(x, "avg", arrays={"mask": mask}, return_counts=True)
    expected = (x * mask[:, None]).sum((2, 3)) / np.maximum(mask.sum((1, 2)), 1)[:, None]
    assert relative_error(pooled.tensor, expected) < 1e-12
    assert pooled.counts is not None
    assert (pooled.counts == mask.sum((1, 2))).all()


def test_each_sample_has_its_own_labels(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 2, 4, 5))
    labels = rng.integers(-1, 4, (3, 4, 5))
    pooled = pool(x, "max", arrays={"labels": labels}, segments=5, return_counts=True)
    assert pooled.tensor.shape == (3, 2, 5)
    assert pooled.counts is not None
    for n, k in np.ndindex(3, 5):
        cells = x[n][:, labels[n] == k]
        assert (pooled.tensor[n, :, k] == (cells.max(1) if cells.size else 0)).all()
        assert pooled.counts[n, k] == cells.shape[1]


def test_a_mask_that_is_not_the_plane_s_is_refused(pool: Pool) -> None:
    with pytest.raises(InvalidTensor, match=r"mask: expected the plane \[4, 4\]"):
        pool(np.zeros((2, 4, 4), np.float32), "avg", arrays={"mask": np.ones((4, 5), bool)})


def test_boxes_are_their_cells_corners_included(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 9, 9))
    got = pool(x, "avg", arrays={"boxes": np.array([[0, 0, 3, 2], [2, 5, 8, 8]])}).tensor
    assert relative_error(got[..., 0].reshape(2, 3), x[..., :3, :4].mean((2, 3))) < 1e-12
    assert relative_error(got[..., 1].reshape(2, 3), x[..., 5:, 2:].mean((2, 3))) < 1e-12


def test_a_box_outside_the_plane_is_refused(pool: Pool) -> None:
    with pytest.raises(InvalidParameter, match="box"):
        pool(np.zeros((1, 9, 9), np.float32), "max", arrays={"boxes": np.array([[0, 0, 40, 3]])})


def test_counts_are_the_cells_of_windows_at_the_edge(pool: Pool) -> None:
    pooled = pool(
        np.zeros((4, 4), np.float32), "avg", kernel=3, stride=2, padding=1, ceil_mode=True, return_counts=True
    )
    assert pooled.counts is not None
    assert pooled.counts.tolist() == [[4, 6, 2], [6, 9, 3], [2, 3, 1]]


# NaN and infinities


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", ["max", "min", "avg", "sum", "lp", "lse", "median", "std", "gem", "softmax"])
@pytest.mark.parametrize("place", range(4))
def test_nan_poisons_its_window_and_no_other_wherever_it_stands(
    pool: Pool, dtype: str, op: str, place: int, rng: np.random.Generator
) -> None:
    x = rng.random((4, 4)).astype(dtype)
    x[2 + place // 2, place % 2] = np.nan
    for regions in ({"kernel": 2}, {"output_size": 2}):
        assert np.isnan(pool(x, op, **regions).tensor).tolist() == [[False, False], [True, False]]
    assert np.isnan(pool(x, op).tensor)


@pytest.mark.parametrize("op", ["max", "min", "avg", "sum"])
def test_omitted_nan_does_not_count(pool: Pool, op: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 6, 6))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[:, :2, :2] = np.nan
    functions = {"max": np.nanmax, "min": np.nanmin, "avg": np.nanmean, "sum": np.nansum}
    windows = x.reshape(3, 3, 2, 3, 2).swapaxes(2, 3).reshape(27, 4)
    expected = [functions[op](row) if not np.isnan(row).all() else 0.0 for row in windows]
    got = pool(x, op, kernel=2, nan="omit").tensor
    assert relative_error(got.ravel(), np.array(expected)) < 1e-14


def test_rejected_nan(pool: Pool) -> None:
    x = np.float32([[1, np.inf], [2, 3]])
    assert pool(x, "max", kernel=2, nan="reject").tensor.tolist() == [[np.inf]]
    x[0, 0] = np.nan
    with pytest.raises(InvalidTensor, match="got NaN"):
        pool(x, "max", kernel=2, nan="reject")


@pytest.mark.parametrize("counted", [False, True])
def test_what_is_omitted_does_not_change_how_other_windows_divide(pool: Pool, counted: bool) -> None:
    x = np.float32([1, 2, 3, 4, 5, 6])
    windows = {"kernel": 3, "padding": 1, "count_include_pad": counted, "nan": "omit"}
    before = pool(x, "avg", **windows).tensor
    x[5] = np.nan
    assert (pool(x, "avg", **windows).tensor[:2] == before[:2]).all()


@pytest.mark.parametrize("regions", [{"kernel": 2}, {"kernel": 2, "dilation": 2, "stride": 1}, {"output_size": 2}, {}])
def test_minus_infinity_alone_stays(pool: Pool, regions: dict[str, Any]) -> None:
    """ONNX Runtime's kernels give −3.4e38 in places."""
    x = np.full((1, 1, 4, 4), -np.inf, np.float32)
    assert (pool(x, "max", **regions).tensor == -np.inf).all()
    assert (pool(-x, "min", **regions).tensor == np.inf).all()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("op", ["max", "min", "avg", "sum"])
def test_windows_that_step_over_the_plane_are_zero(pool: Pool, op: str, dtype: str, rng: np.random.Generator) -> None:
    """Every plane, kernel, dilation and padding up to 3 cells: what a window without a cell gives is 0, and not −∞ or 0/0."""
    stepped_over = 0
    for size, kernel, dilation in itertools.product((1, 2, 3), (1, 2, 3), (1, 2, 3)):
        x = rng.integers(-100, -1, size).astype(dtype)
        extent = dilation * (kernel - 1) + 1
        for padding in ("same", *range(kernel // 2 + 1)):
            before = (extent - 1) // 2 if padding == "same" else int(padding)
            count = size if padding == "same" else size + 2 * before - extent + 1
            if count < 1:
                continue
            windows = [[i - before + dilation * tap for tap in range(kernel)] for i in range(count)]
            inside = [x[[cell for cell in window if 0 <= cell < size]].astype(float) for window in windows]
            stepped_over += sum(not cells.size for cells in inside)
            fold = {"max": np.max, "min": np.min, "avg": np.mean, "sum": np.sum}[op]
            expected = [float(fold(cells)) if cells.size else 0.0 for cells in inside]
            same = {"kernel": kernel, "dilation": dilation, "padding": padding, "stride": 1, "spatial": 1}
            assert pool(x, op, **same).tensor == pytest.approx(expected, rel=1e-6), same
    assert stepped_over

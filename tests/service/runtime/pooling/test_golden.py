"""Numbers that people have in their textbooks: a 4×4 matrix of many tutorials, two figures of Goodfellow et al., ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs.operators.catalogue import CATALOGUE
from service.errors import InvalidParameter
from service.runtime.pooling.pooler import Pooler
from tests.service.runtime.pooling.conftest import Pool

MATRIX = np.array([[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]], np.float32)

WINDOWS: list[tuple[str, dict[str, Any], list[float]]] = [
    ("max", {}, [5, 7, 8, 9]),
    ("avg", {}, [2.75, 3.5, 4.5, 5]),
    ("sum", {}, [11, 14, 18, 20]),
    ("min", {}, [1, 1, 1, 2]),
    ("range", {}, [4, 6, 7, 7]),
    ("lp", {"p": 2}, [6.2450, 8.3666, 10.4881, 11.2250]),
    ("lp", {"p": 3}, [5.4401, 7.4650, 9.1098, 9.7470]),
    ("lp", {"p": 1}, [11, 14, 18, 20]),
    ("stochastic", {}, [3.5455, 5, 6.1111, 6.3]),
    ("power", {"n": 1}, [3.5455, 5, 6.1111, 6.3]),
    ("softpool", {"tau": 1}, [4.5901, 6.8131, 7.7281, 8.8895]),
    ("softmax", {"alpha": 1}, [4.5901, 6.8131, 7.7281, 8.8895]),
    ("lse", {"r": 1}, [3.7989, 5.6710, 6.7473, 7.6393]),
    ("median", {"convention": "lower"}, [2, 2, 3, 4]),
    ("median", {"convention": "mean"}, [2.5, 3, 4.5, 4.5]),
]

WHOLE: list[tuple[str, dict[str, Any], float]] = [
    ("avg", {}, 3.9375),
    ("max", {}, 9),
    ("min", {}, 1),
    ("sum", {}, 63),
    ("gem", {"p": 3}, 5.20713),
    ("var", {}, 6.05859),
    ("lse", {"r": 1}, 6.70477),
]


@pytest.mark.parametrize(("op", "own", "expected"), WINDOWS)
def test_two_by_two_windows_of_the_matrix(pool: Pool, op: str, own: dict[str, Any], expected: list[float]) -> None:
    got = pool(MATRIX, op, kernel=2, **own).tensor
    assert got.shape == (2, 2)
    np.testing.assert_allclose(got.ravel(), expected, rtol=2e-5)


@pytest.mark.parametrize(("op", "own", "expected"), WHOLE)
def test_the_whole_matrix(pool: Pool, op: str, own: dict[str, Any], expected: float) -> None:
    got = pool(MATRIX, op, **own).tensor
    assert got.shape == ()
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_maxima_come_from_where_pytorch_says(pool: Pool) -> None:
    assert pool(MATRIX, "max", kernel=2, return_indices=True).indices.tolist() == [[4, 6], [9, 15]]  # type: ignore[union-attr]


def test_adaptive_grids_overlap(pool: Pool) -> None:
    average = pool(MATRIX, "avg", output_size=3).tensor
    assert average.tolist() == [[2.75, 3.5, 3.5], [4.5, 5.25, 3.5], [4.5, 4.5, 5]]
    assert pool(MATRIX, "max", output_size=3).tensor.tolist() == [[5, 7, 7], [8, 8, 7], [8, 8, 9]]


def test_the_four_quadrants_are_the_two_by_two_average(pool: Pool) -> None:
    assert pool(MATRIX, "avg", output_size=2).tensor.tolist() == [[2.75, 3.5], [4.5, 5]]


def test_ceil_mode_keeps_the_edge(pool: Pool) -> None:
    assert pool(MATRIX, "max", kernel=3).tensor.tolist() == [[8]]
    assert pool(MATRIX, "max", kernel=3, ceil_mode=True).tensor.tolist() == [[8, 4], [6, 9]]
    average = pool(MATRIX, "avg", kernel=3, ceil_mode=True).tensor
    np.testing.assert_allclose(average, [[35 / 9, 7 / 3], [4, 9]], rtol=1e-6)


def test_gradient_of_the_maxima_is_one_at_each(pool: Pool) -> None:
    expected = np.zeros(16)
    expected[[4, 6, 9, 15]] = 1
    assert (pool(MATRIX, "max", "gradient", kernel=2).tensor.ravel() == expected).all()


def test_gradient_of_the_averages_is_a_quarter_everywhere(pool: Pool) -> None:
    assert (pool(MATRIX, "avg", "gradient", kernel=2).tensor == 0.25).all()


def test_gradients_of_overlapping_windows_add_up(pool: Pool) -> None:
    expected = np.zeros((4, 4))
    expected[2, 1], expected[3, 3] = 3, 1
    assert (pool(MATRIX, "max", "gradient", kernel=3, stride=1).tensor == expected).all()


@pytest.mark.parametrize("parameters", [{"kernel": 2}, {"output_size": 1}, {}])
def test_of_equal_values_the_first_wins(pool: Pool, parameters: dict[str, Any]) -> None:
    ones = np.ones((2, 2), np.float32)
    assert pool(ones, "max", return_indices=True, **parameters).indices.ravel().tolist() == [0]  # type: ignore[union-attr]
    for op in ("max", "min"):
        assert pool(ones, op, "gradient", **parameters).tensor.tolist() == [[1, 0], [0, 0]]


def test_figure_9_8_of_goodfellow_half_of_the_pooled_values_survive_a_shift(pool: Pool) -> None:
    detectors, shifted = np.float32([0.1, 1, 0.2, 0.1]), np.float32([0.3, 0.1, 1, 0.2])
    windows = {"kernel": 3, "stride": 1, "padding": 1}
    before, after = (pool(x, "max", **windows).tensor for x in (detectors, shifted))
    assert (before == np.float32([1, 1, 1, 0.2])).all()
    assert (after == np.float32([0.3, 1, 1, 1])).all()
    assert (before != after).mean() == 0.5
    assert (detectors != shifted).all()


def test_figure_9_10_of_goodfellow_the_last_smaller_region_is_kept_by_ceil_mode(pool: Pool) -> None:
    detectors = np.float32([0.1, 1, 0.2, 0.1, 0, 0.1])
    assert (pool(detectors, "max", kernel=3, stride=2, ceil_mode=True).tensor == np.float32([1, 0.2, 0.1])).all()
    assert (pool(detectors, "max", kernel=3, stride=2).tensor == np.float32([1, 0.2])).all()


def test_32_cells_by_3_give_11_windows_with_ceil_mode_and_10_without(pool: Pool, rng: np.random.Generator) -> None:
    pictures = rng.standard_normal((16, 3, 32, 32)).astype(np.float32)
    assert pool(pictures, "max", kernel=3, ceil_mode=True).tensor.shape == (16, 3, 11, 11)
    assert pool(pictures, "max", kernel=3).tensor.shape == (16, 3, 10, 10)


def test_two_by_two_halves_both_sides(pool: Pool, rng: np.random.Generator) -> None:
    picture = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    pooled = pool(picture, "max", kernel=2, stride=2).tensor
    assert pooled.shape == (1, 3, 16, 16)
    assert pooled.size / picture.size == 0.25


def test_channels_taken_for_rows_give_tensorflow_s_shapes(pool: Pool, rng: np.random.Generator) -> None:
    """A tutorial pools (1,3,32,32) with channels last and says (1,3,16,16); TensorFlow gives these."""
    picture = rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    for padding, shape in (("valid", (1, 1, 16, 32)), ("same", (1, 2, 16, 32))):
        assert pool(picture, "avg", kernel=2, padding=padding, layout="channels_last").tensor.shape == shape


def test_the_average_of_partial_windows_counts_padding_but_not_what_ceil_mode_adds(pool: Pool) -> None:
    x = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    got = pool(x, "avg", kernel=3, stride=2, padding=1, ceil_mode=True, count_include_pad=True).tensor
    np.testing.assert_allclose(got, [[14 / 9, 10 / 3, 2], [19 / 3, 11, 6], [4.5, 7.5, 4]], rtol=1e-6)


def test_padding_at_the_end_counts_too(pool: Pool) -> None:
    ones = np.ones((2, 2), np.float32)
    got = pool(ones, "avg", kernel=2, stride=1, padding=[[0, 1], [0, 1]], count_include_pad=True).tensor
    assert got.tolist() == [[1, 0.5], [0.5, 0.25]]


def test_dilated_maxima_with_padding_stay_on_their_grid(pool: Pool) -> None:
    """A CUDA kernel of ONNX Runtime once gave 1 and index 0 first."""
    x = np.float32([1, 9, 2, 8, 3, 7, 4, 6, 5])
    pooled = pool(x, "max", kernel=2, stride=1, dilation=2, padding=1, return_indices=True)
    assert pooled.tensor.tolist() == [9, 2, 9, 3, 8, 4, 7, 5, 6]
    assert pooled.indices.tolist() == [1, 2, 1, 4, 3, 6, 5, 8, 7]  # type: ignore[union-attr]


def test_maxima_go_back_to_their_places(pool: Pool) -> None:
    pooled = pool(MATRIX, "max", kernel=2, return_indices=True)
    back = pool(pooled.tensor, "max", "unpool", {"indices": pooled.indices}, kernel=2).tensor
    assert back.tolist() == [[0, 0, 0, 0], [5, 0, 7, 0], [0, 8, 0, 0], [0, 0, 0, 9]]
    assert (pool(back, "max", kernel=2).tensor == pooled.tensor).all()


def test_averages_and_sums_are_spread_over_their_windows(pool: Pool) -> None:
    average = pool(MATRIX, "avg", kernel=2).tensor
    spread = pool(average, "avg", "unpool", kernel=2).tensor
    assert spread.tolist() == np.repeat(np.repeat(average, 2, 0), 2, 1).tolist()
    assert (pool(spread, "avg", kernel=2).tensor == average).all()
    total = pool(MATRIX, "sum", kernel=2).tensor
    assert (pool(pool(total, "sum", "unpool", kernel=2).tensor, "sum", kernel=2).tensor == total).all()


def test_nearest_repeats(pool: Pool) -> None:
    x = np.float32([[1, 2], [3, 4]])
    assert pool(x, "nearest", "unpool", output_size="4,3").tensor.tolist() == [
        [1, 1, 2],
        [1, 1, 2],
        [3, 3, 4],
        [3, 3, 4],
    ]


def test_unpooling_an_odd_plane_needs_its_size(pool: Pool, pooler: Pooler) -> None:
    x = np.float32([[1, 2, 3], [4, 9, 6], [7, 8, 5]])
    pooled = pool(x, "max", kernel=2, return_indices=True)
    back = pool(pooled.tensor, "max", "unpool", {"indices": pooled.indices}, output_size=3).tensor
    assert back.tolist() == [[0, 0, 0], [0, 9, 0], [0, 0, 0]]
    with pytest.raises(InvalidParameter, match="output_size"):
        pooler.prepare("unpool", "max", {}, {"indices": pooled.indices}, (1, 1), np.dtype("float32"))


def test_all_operators_of_the_tables_are_in_the_catalogue() -> None:
    assert {op for op, *_ in (*WINDOWS, *WHOLE)} <= set(CATALOGUE)


def test_a_picture_s_worth_of_16_bit_floats(pool: Pool, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 16, 56, 56)).astype(np.float16)
    pooled = pool(x, "max", kernel=2).tensor
    assert pooled.dtype == np.float16
    assert (pooled == x.reshape(4, 16, 28, 2, 28, 2).max((3, 5))).all()

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from graphs.operators.catalogue import find
from graphs.operators.regions.block import RegionError
from graphs.operators.request import RegionParameters
from graphs.operators.systems import regions_of
from tests import reference_pooling as reference
from tests.graphs.operators.agreement import relative
from tests.graphs.operators.evaluate import differentiate, evaluate

OWN = {"gaussian", "blur", "fractional_max", "spoc", "wavelet", "gated"}


def pool(operator: str, x: np.ndarray, request: dict[str, Any] | None = None, **own: Any) -> np.ndarray:
    """Pool x (B, plane…) over the operator's own regions."""
    record = find(operator)
    regions = regions_of(
        record,
        record.parameters.model_validate(own),
        x.shape[1:],
        RegionParameters.model_validate(request or {}),
        {},
        max_regions=10**6,
    )
    y = np.full((len(x), math.prod(regions.shape)), np.nan)
    for block in regions.blocks(10**5):
        y[:, block.rows] = evaluate(record, x.reshape(len(x), -1), block.index, block.weight, block.divisor, **own)[
            ..., 0
        ]
    return y.reshape(len(x), *regions.shape)


def test_a_gaussian_window_is_the_weighted_average(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 7, 9))
    found = pool("gaussian", x, {"kernel": [3, 5], "stride": 2, "padding": 1}, sigma=1.3)
    due = np.empty((2, 4, 4))
    for row, column in np.ndindex(4, 4):
        total = weights = 0.0
        for i, j in itertools.product(range(3), range(5)):
            y, z = 2 * row - 1 + i, 2 * column - 1 + j
            if 0 <= y < 7 and 0 <= z < 9:
                weight = math.exp(-((i - 1) ** 2 + (j - 2) ** 2) / (2 * 1.3**2))
                total, weights = total + weight * x[:, y, z], weights + weight
        due[:, row, column] = total / weights
    assert relative(found, due) < 1e-12


@pytest.mark.parametrize("profile", ["gaussian", "inverse_distance", "raised_cosine"])
def test_every_profile_keeps_a_constant_and_weighs_the_centre_most(profile: str) -> None:
    for request in ({}, {"kernel": 3}, {"output_size": 2}, {"levels": [1, 2]}):
        constant = pool("gaussian", np.full((1, 5, 7), 2.5), request, profile=profile)
        assert constant == pytest.approx(np.full(constant.shape, 2.5), rel=1e-12)
    impulse = np.zeros((25, 5, 5))
    impulse.reshape(25, 25)[np.arange(25), np.arange(25)] = 1
    share = pool("gaussian", impulse, profile=profile)
    assert share.shape == (25,)
    assert share.argmax() == 12
    assert share.sum() == pytest.approx(1)
    assert share.reshape(5, 5) == pytest.approx(share.reshape(5, 5)[::-1, ::-1])


@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("zero", "constant"), ("replicate", "edge")])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_blur_is_a_binomial_filter_and_a_step(rng: np.random.Generator, border: str, mode: Any, size: int) -> None:
    x = rng.standard_normal((1, 8, 9))
    taps = np.array([math.comb(size - 1, tap) for tap in range(size)]) / 2 ** (size - 1)
    padded = np.pad(x[0], [((size - 1) // 2, size // 2)] * 2, mode=mode)
    smooth = np.array([np.convolve(row, taps, "valid") for row in padded])
    smooth = np.array([np.convolve(column, taps, "valid") for column in smooth.T]).T
    assert relative(pool("blur", x, size=size, stride=[2, 3], border=border)[0], smooth[::2, ::3]) < 1e-12


def test_fractional_max_is_torchs(rng: np.random.Generator) -> None:
    import torch

    for _ in range(20):
        x = rng.standard_normal((1, 11, 13))
        u = rng.random(2)
        due = torch.nn.functional.fractional_max_pool2d(
            torch.tensor(x)[None], 2, output_size=(6, 7), _random_samples=torch.tensor([[[u[1], u[0]]]])
        )
        assert (pool("fractional_max", x, output_size=[6, 7], samples=u.tolist()) == due[0].numpy()).all()


def test_fractional_max_is_repeatable_and_disjoint_regions_cover_the_plane(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 10, 10))
    first = pool("fractional_max", x, output_ratio=0.7, disjoint=True, seed=5)
    assert first.shape == (1, 7, 7)
    assert (first == pool("fractional_max", x, output_ratio=0.7, disjoint=True, seed=5)).all()
    assert first.max() == x.max()


@pytest.mark.parametrize("shape", [(11,), (6, 9), (3, 4, 5)])
def test_spoc_is_the_papers_formula(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x = rng.standard_normal((2, *shape))
    sigma = min(shape) / 6
    due = np.zeros(2)
    for place in np.ndindex(shape):
        distance = sum((at - (size - 1) / 2) ** 2 for at, size in zip(place, shape, strict=True))
        due += math.exp(-distance / (2 * sigma**2)) * x[:, *place]
    assert relative(pool("spoc", x), due) < 1e-12
    weights = np.array([1.0, 2.0])
    gradient = differentiate("spoc", x.reshape(2, -1), weights[:, None, None], weight=np.ones((1, x[0].size)))
    assert (gradient == np.broadcast_to(weights[:, None], gradient.shape)).all()


def test_wavelet_is_haars_approximation(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 4, 6))
    a, b, c, d = (x[0, i::2, j::2] for i in (0, 1) for j in (0, 1))
    approximation = (a + b + c + d) / 2
    assert relative(pool("wavelet", x)[0], approximation) < 1e-12
    details = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    energy = sum(float((part**2).sum()) for part in (approximation, *details))
    assert energy == pytest.approx(float((x**2).sum()))
    odd = pool("wavelet", np.array([[1.0, 3.0, 5.0]]))
    assert odd[0] == pytest.approx([4 / math.sqrt(2), 10 / math.sqrt(2)])


@pytest.mark.parametrize("bias", [-1.0, 0.0, 2.0])
def test_gated_is_the_papers_formula(rng: np.random.Generator, bias: float) -> None:
    x = rng.standard_normal((1, 4, 6))
    omega = rng.standard_normal(6)
    found = pool("gated", x, {"kernel": [2, 3]}, omega=omega, bias=bias)
    for row, column in np.ndindex(2, 2):
        window = x[0, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].reshape(-1)
        due = reference.gated(window, np.ones(6), omega, bias)
        assert found[0, row, column] == pytest.approx(due, rel=1e-12)


def test_a_lone_gate_weight_stands_for_its_share_of_every_cell(rng: np.random.Generator) -> None:
    x = rng.standard_normal((1, 3, 5))
    lone = pool("gated", x, omega=np.array([1.7]), bias=0.2)
    assert lone == pytest.approx(pool("gated", x, omega=np.full(15, 1.7 / 15), bias=0.2), rel=1e-12)
    assert np.isfinite(pool("gated", x, {"kernel": 3, "padding": 1}, omega=np.array([1.7]))).all()


def test_the_gradient_of_gated_is_that_of_its_formula(rng: np.random.Generator) -> None:
    x = rng.permutation(np.linspace(-2, 2, 6))[None]
    omega = rng.standard_normal(6)
    due = np.zeros((1, 6))
    for place in range(6):
        step = np.zeros(6)
        step[place] = 1e-6
        due[0, place] = (
            reference.gated(x[0] + step, np.ones(6), omega, 0.3) - reference.gated(x[0] - step, np.ones(6), omega, 0.3)
        ) / 2e-6
    assert relative(differentiate("gated", x, np.ones((1, 1, 1)), omega=omega, bias=0.3), due) < 1e-8


@pytest.mark.parametrize(
    ("operator", "request_", "own", "says"),
    [
        (
            "gated",
            {"kernel": 2, "padding": 1},
            {"omega": np.ones(4)},
            "omega: expected one number, or one for each cell",
        ),
        ("gated", {"kernel": 3}, {"omega": np.ones(4)}, "which have 9; got 4"),
        ("gaussian", {"strips": True}, {}, "strips: gaussian brings its own regions"),
        ("gaussian", {"kernel": 2, "count_include_pad": True}, {}, "count_include_pad: gaussian"),
        ("gaussian", {}, {"sigma": 2, "profile": "raised_cosine"}, "sigma: belongs to the gaussian profile"),
        ("spoc", {"kernel": 2}, {}, "kernel: spoc brings its own regions"),
        ("blur", {"output_size": 2}, {}, "output_size: blur"),
        ("fractional_max", {}, {}, "expected one of output_size and output_ratio"),
        ("fractional_max", {}, {"output_size": 9}, "output_size: expected output_size"),
        ("wavelet", {"levels": 2}, {}, "levels: wavelet"),
    ],
)
def test_what_names_other_regions_is_refused(operator: str, request_: Any, own: Any, says: str) -> None:
    with pytest.raises(RegionError, match=says.replace("(", r"\(")):
        pool(operator, np.zeros((1, 6, 6)), request_, **own)


@pytest.mark.parametrize("name", ["boxes", "labels"])
@pytest.mark.parametrize("operator", sorted(OWN - {"gated"}))
def test_boxes_and_labels_are_refused_beside_own_regions(operator: str, name: str) -> None:
    record = find(operator)
    with pytest.raises(RegionError, match=f"{name}: '{operator}' brings its own regions"):
        regions_of(record, record.parameters(), (6, 6), RegionParameters(), {name: np.zeros((6, 6))}, max_regions=99)

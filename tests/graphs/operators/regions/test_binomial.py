"""Binomial windows, against padding and convolving with PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs.operators.regions.binomial import binomial
from graphs.operators.regions.block import RegionError
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled


def blurred(x: np.ndarray, size: int, stride: int, border: str, pads: tuple[int, int]) -> np.ndarray:
    """Pad, then a strided convolution with the normalised kernel."""
    line = np.poly1d([1.0, 1.0]) ** (size - 1)
    kernel = torch.tensor(line.coeffs if size > 1 else np.ones(1)) / 2 ** (size - 1)
    mode = {"reflect": "reflect", "zero": "constant", "replicate": "edge"}[border]
    batch = torch.tensor(np.pad(x, pads, mode=mode))[None, None]  # type: ignore[call-overload]
    if x.ndim == 1:
        return F.conv1d(batch, kernel[None, None], stride=stride)[0, 0].numpy()
    if x.ndim == 2:
        return F.conv2d(batch, (kernel[:, None] * kernel)[None, None], stride=stride)[0, 0].numpy()
    cube = kernel[:, None, None] * kernel[:, None] * kernel
    return F.conv3d(batch, cube[None, None], stride=stride)[0, 0].numpy()


@pytest.mark.parametrize("border", ["reflect", "zero", "replicate"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_average_is_blur_pooling(border: str, size: int, axes: int, rng: np.random.Generator) -> None:
    """Absolute error ≤ 1e-12, with the paper's padding and with an equal one on both sides."""
    for padding in (None, (size - 1) // 2):
        plane = tuple(int(value) for value in rng.integers(4 if border == "reflect" else 1, 9, axes))
        stride = int(rng.integers(1, 4))
        x = rng.normal(size=plane)
        pads = ((size - 1) // 2, size // 2) if padding is None else (padding, padding)
        if min(plane) + sum(pads) < size:
            continue
        regions = binomial(plane, size, stride, border=border, padding=padding)
        expected = blurred(x, size, stride, border, pads)
        if padding is None:
            assert regions.shape == tuple(-(-cells // stride) for cells in plane)
        np.testing.assert_allclose(pooled(regions, x, "average", 60), expected, rtol=0, atol=1e-12)
        assert_keeps_promises(regions, 60, ascending=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"size": 0}, "size: expected 1 to 64, got 0"),
        ({"size": 10**9}, "size: expected 1 to 64, got 1000000000"),
        ({"stride": 0}, "stride: expected 1 to 2147483647, got 0"),
        ({"border": "wrap"}, "border: expected one of reflect, zero, replicate"),
        ({"size": 7}, 'reflecting 3 cells of padding needs an axis of at least 4 cells, the plane has 3; "replicate"'),
        ({"padding": 10**9, "border": "zero"}, "padding: expected at most size + stride = 6, got 1000000000"),
        ({"padding": 0}, "size: a window of 4 cells is larger than the plane's 3 with padding 0 + 0"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        binomial((3, 5), **given)  # type: ignore[arg-type]
    assert says in str(refusal.value)


def test_one_cell_is_blurred_with_other_borders_than_reflection() -> None:
    x = np.array([3.0])
    assert pooled(binomial((1,), border="replicate"), x, "average").tolist() == [3.0]
    assert pooled(binomial((1,), 3, border="zero"), x, "average").tolist() == [1.5]

"""Windows, against PyTorch's pooling and TensorFlow's rule for SAME."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from graphs.operators.regions.block import RegionError
from graphs.operators.regions.windows import WindowGeometry, window_geometry, windows
from tests.graphs.operators.regions.pooled import assert_keeps_promises, pooled

DRAWS = 300


def draw(rng: np.random.Generator, axes: int) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """A plane and windows that may or may not fit it."""

    def ints(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(value) for value in rng.integers(low, high + 1, axes))

    kernel = ints(1, 4)
    padding = tuple(int(rng.integers(k // 2 + 1)) for k in kernel)
    return ints(1, 9), {"kernel": kernel, "stride": ints(1, 4), "padding": padding}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_averages_are_pytorchs(axes: int, rng: np.random.Generator) -> None:
    """Relative error ≤ 1e-12 in float64. PyTorch's 3-D average also refuses kernels above the unpadded plane; we do not."""
    compared = 0
    for _ in range(DRAWS):
        plane, given = draw(rng, axes)
        ceil, count_pads = bool(rng.integers(2)), bool(rng.integers(2))
        override = int(rng.integers(1, 9)) * int(rng.choice([-1, 1])) if axes > 1 and rng.integers(3) == 0 else None
        x = rng.normal(size=plane)
        extra = {} if override is None else {"divisor_override": override}
        try:
            average = getattr(F, f"avg_pool{axes}d")
            expected = average(torch.tensor(x)[None, None], *given.values(), ceil, count_pads, **extra)[0, 0].numpy()
        except RuntimeError:
            if axes < 3:
                with pytest.raises(RegionError):
                    window_geometry(plane, **given, ceil_mode=ceil)
            continue
        regions = windows(
            window_geometry(plane, **given, ceil_mode=ceil), count_include_pad=count_pads, divisor_override=override
        )
        got = pooled(regions, x, "average", int(rng.integers(1, 200)))
        assert got.shape == expected.shape, (plane, given, ceil)
        np.testing.assert_allclose(
            got, expected, rtol=1e-12, atol=1e-12, err_msg=f"{plane} {given} {ceil} {count_pads}"
        )
        compared += 1
    assert compared > DRAWS / 4


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_maxima_are_pytorchs_with_dilation(axes: int, rng: np.random.Generator) -> None:
    """Bitwise, and the first of a tie has the lowest position; a window without cells is −∞ in both."""
    compared = 0
    for _ in range(DRAWS):
        plane, given = draw(rng, axes)
        dilation, ceil = tuple(int(value) for value in rng.integers(1, 4, axes)), bool(rng.integers(2))
        x = rng.normal(size=plane)
        try:
            maximum = getattr(F, f"max_pool{axes}d")
            expected = maximum(torch.tensor(x)[None, None], *given.values(), dilation, ceil)[0, 0].numpy()
        except RuntimeError:
            with pytest.raises(RegionError):
                window_geometry(plane, **given, dilation=dilation, ceil_mode=ceil)
            continue
        regions = windows(window_geometry(plane, **given, dilation=dilation, ceil_mode=ceil))
        got = pooled(regions, x, "maximum", int(rng.integers(1, 200)))
        np.testing.assert_array_equal(got, expected, err_msg=f"{plane} {given} {dilation} {ceil}")
        assert_keeps_promises(regions, int(rng.integers(1, 200)))
        compared += 1
    assert compared > DRAWS / 8


@pytest.mark.parametrize("axes", [1, 2])
def test_asymmetric_pads_average_as_an_explicitly_padded_plane(axes: int, rng: np.random.Generator) -> None:
    for _ in range(100):
        plane, given = draw(rng, axes)
        pads = tuple((int(rng.integers(k // 2 + 1)), int(rng.integers(k // 2 + 1))) for k in given["kernel"])
        padded = np.pad(rng.normal(size=plane), pads)
        if any(k > size for k, size in zip(given["kernel"], padded.shape, strict=True)):
            continue
        inner = padded[tuple(slice(b, b + n) for (b, _), n in zip(pads, plane, strict=True))]
        regions = windows(window_geometry(plane, given["kernel"], given["stride"], pads), count_include_pad=True)
        expected = pooled(windows(window_geometry(padded.shape, given["kernel"], given["stride"])), padded, "average")
        np.testing.assert_allclose(pooled(regions, inner, "average"), expected, rtol=1e-12, atol=1e-12)


def test_same_is_tensorflows_formula_with_dilation_and_large_strides() -> None:
    """Out = ⌈L/s⌉, total = max((out−1)s + k_eff − L, 0), the odd cell after; each window against a loop over its taps."""
    for size, kernel, stride, dilation in itertools.product(range(1, 8), range(1, 5), range(1, 6), range(1, 4)):
        geometry = window_geometry([size], kernel, stride, "same", dilation=dilation)
        output = math.ceil(size / stride)
        total = max((output - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        before = total // 2
        assert geometry.output == (output,)
        assert geometry.pads == ((before, total - before),)
        x = np.arange(1.0, size + 1)
        taps = [[i * stride - before + dilation * t for t in range(kernel)] for i in range(output)]
        expected = [sum(x[at] for at in window if 0 <= at < size) for window in taps]
        np.testing.assert_array_equal(pooled(windows(geometry), x, "sum"), expected)


def test_valid_pads_nothing_and_rounds_down() -> None:
    for size, kernel, stride in itertools.product(range(1, 8), range(1, 5), range(1, 5)):
        if kernel <= size:
            geometry = window_geometry([size], kernel, stride, "valid")
            assert geometry.output == (math.ceil((size - kernel + 1) / stride),)
            assert geometry.pads == ((0, 0),)


def test_phantom_cells_of_ceil_mode_are_not_counted() -> None:
    """The 4×4 matrix 1 … 16 with kernel 3, stride 2, padding 1, whose corner ONNX Runtime once divided by 9."""
    regions = windows(window_geometry((4, 4), 3, 2, 1, ceil_mode=True), count_include_pad=True)
    expected = [[14 / 9, 10 / 3, 2], [19 / 3, 11, 6], [4.5, 7.5, 4]]
    np.testing.assert_allclose(pooled(regions, np.arange(1.0, 17), "average"), expected, rtol=1e-15)


def test_geometry_is_what_was_asked_for_resolved() -> None:
    assert window_geometry((5, 6), 3, None, (0, 1), dilation=(2, 1)) == WindowGeometry(
        plane=(5, 6),
        kernel=(3, 3),
        stride=(3, 3),
        pads=((0, 0), (1, 1)),
        dilation=(2, 1),
        output=(1, 2),
        ceil_mode=False,
    )


def test_full_windows_need_no_weights() -> None:
    (block,) = windows(window_geometry((56, 56), 2)).blocks(10**6)
    assert block.weight is None
    assert block.divisor is None
    assert block.index is not None
    assert block.index.dtype == np.int32


def test_huge_kernels_cost_only_the_cells_that_they_reach() -> None:
    for geometry in (
        window_geometry((4, 5), 10**9, None, "same"),
        window_geometry((4, 5), 10**9, 1, 5 * 10**8, dilation=1),
        window_geometry((4, 5), 2, 2**31 - 1, "same", dilation=2**31 - 1),
    ):
        regions = windows(geometry)
        assert regions.cells <= 30 * 20
        assert_keeps_promises(regions, 50)


def test_a_large_plane_comes_in_bounded_blocks() -> None:
    regions = windows(window_geometry((4000, 3000), 3, 2, 1))
    sizes = [block.index.size for block in regions.blocks(10**6) if block.index is not None]
    assert max(sizes) <= 10**6
    assert min(sizes) >= 10**6 / 2
    assert sum(sizes) == regions.cells == 2000 * 1500 * 9


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kernel": 0}, "kernel: expected 1 to 2147483647, got 0"),
        ({"kernel": 10**9}, "kernel: a window of 1000000000 cells is larger than the plane's 4 on that axis"),
        ({"kernel": 5, "padding": ((0, 0), (0, 1))}, "larger than the plane's 4 on that axis"),
        ({"kernel": 10**400}, "kernel: expected 1 to 2147483647, got about 10^400"),
        ({"kernel": (2, 2, 2)}, "kernel: expected one number or 2, one per pooled axis, got 3"),
        ({"kernel": 2.0}, "kernel: expected an integer, got float"),
        ({"kernel": True}, "kernel: expected an integer, got bool"),
        ({"kernel": 2, "stride": 0}, "stride: expected 1 to 2147483647, got 0"),
        ({"kernel": 2, "dilation": 0}, "dilation: expected 1 to 2147483647, got 0"),
        ({"kernel": 2, "dilation": 10**18}, "dilation: expected 1 to 2147483647, got 1000000000000000000"),
        ({"kernel": 2, "dilation": 10**9}, "a window of 1000000001 cells is larger than the plane's 4"),
        ({"kernel": 3, "padding": 2}, "padding: expected at most half the kernel of 3, got 2"),
        ({"kernel": 3, "padding": 10**9}, "padding: expected at most half the kernel of 3, got 1000000000"),
        ({"kernel": 3, "padding": -1}, "padding: expected 0 to 2147483647, got -1"),
        ({"kernel": 3, "padding": ((1, 1),)}, "padding: expected a pair (before, after) for each of the 2 pooled axes"),
        ({"kernel": 2, "padding": "full"}, 'padding: expected numbers, "same" or "valid"'),
        ({"kernel": 2, "padding": "same", "ceil_mode": True}, 'ceil_mode: "same" fixes the output size itself'),
    ],
)
def test_bad_windows_are_refused_with_the_rule(given: dict[str, object], says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        window_geometry((4, 4), **given)  # type: ignore[arg-type]
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("plane", "says"),
    [
        ((), "expected a plane of 1 to 3 axes, got 0"),
        ((2, 2, 2, 2), "expected a plane of 1 to 3 axes, got 4"),
        ((4, 0), "expected at least one cell on every axis of the plane, got 4×0"),
        ((2**40, 1), "expected a plane of axes up to 2147483647, got 1099511627776×1"),
    ],
)
def test_planes_without_cells_or_with_too_many_axes_are_refused(plane: tuple[int, ...], says: str) -> None:
    with pytest.raises(RegionError) as refusal:
        window_geometry(plane, 1)
    assert says in str(refusal.value)


def test_a_divisor_of_0_is_refused() -> None:
    with pytest.raises(RegionError, match="divisor_override: expected any integer but 0, got 0"):
        windows(window_geometry((4, 4), 2), divisor_override=0)

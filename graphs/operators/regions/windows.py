"""Windows: kernel, stride, padding and dilation, with PyTorch's rule for the output size and TensorFlow's SAME and VALID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphs.operators.regions.axis import Progressions
from graphs.operators.regions.block import RegionError
from graphs.operators.regions.grid import Grid
from graphs.operators.regions.numbers import LARGEST, checked_plane, integer, per_axis, shown

Padding = int | Sequence[int] | Sequence[tuple[int, int]] | str


@dataclass(frozen=True)
class WindowGeometry:
    """Where the windows lie, with every default and rule resolved; a tuple has one entry for each pooled axis.

    Window i of an axis reads the positions i·stride − pads[0] + dilation·(0 … kernel − 1). Made without allocating anything.

    Attributes:
        plane: sizes of the pooled axes.
        kernel: cells of a window.
        stride: cells between windows.
        pads: cells added before and after; more than the plane and the kernel where SAME asks for it.
        dilation: cells between a window's taps.
        output: number of windows.
        ceil_mode: whether the last window may pass the padding at the end.
    """

    plane: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    output: tuple[int, ...]
    ceil_mode: bool


def window_geometry(
    plane: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> WindowGeometry:
    """Resolve the parameters of windows.

    Padding in numbers gives ⌊(L + before + after − dilation·(kernel − 1) − 1) / stride⌋ + 1 windows, with `ceil_mode` ⌈…⌉ + 1
    less a last one that would start in the padding after the plane (PyTorch's rule). "same" gives ⌈L / stride⌉, with
    max((o − 1)·stride + dilation·(kernel − 1) + 1 − L, 0) cells of padding, the odd one after the plane, "valid" none
    (TensorFlow's rules).

    Args:
        plane: sizes of the pooled axes.
        kernel: at least 1.
        stride: at least 1; the kernel if None.
        padding: for all axes, one for each, a pair (before, after) for each, "same" or "valid"; a number is at most half the
            kernel, as in PyTorch.
        dilation: at least 1.
        ceil_mode: only with padding in numbers.

    Raises:
        RegionError: a number outside its range, or no window fits into the padded plane.
    """
    sizes = checked_plane(plane)
    axes = len(sizes)
    kernels = per_axis("kernel", kernel, axes, 1)
    strides = kernels if stride is None else per_axis("stride", stride, axes, 1)
    dilations = per_axis("dilation", dilation, axes, 1)
    if isinstance(padding, str):
        if padding not in {"same", "valid"}:
            raise RegionError('padding: expected numbers, "same" or "valid"')
        if ceil_mode:
            raise RegionError(f'ceil_mode: "{padding}" fixes the output size itself; give the padding in numbers')
    extents = [d * (k - 1) + 1 for k, d in zip(kernels, dilations, strict=True)]
    if padding == "same":
        output = tuple(-(-size // s) for size, s in zip(sizes, strides, strict=True))
        totals = [max((o - 1) * s + e - n, 0) for o, s, e, n in zip(output, strides, extents, sizes, strict=True)]
        pads = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pads = ((0, 0),) * axes if isinstance(padding, str) else _explicit_pads(padding, kernels)
        output = tuple(
            _windows(*numbers, ceil_mode=ceil_mode) for numbers in zip(sizes, extents, strides, pads, strict=True)
        )
    return WindowGeometry(sizes, kernels, strides, pads, dilations, output, ceil_mode)


def windows(
    geometry: WindowGeometry,
    *,
    count_include_pad: bool = False,
    divisor_override: int | None = None,
) -> Grid:
    """All windows of a geometry.

    Args:
        geometry: where they lie.
        count_include_pad: an average divides by the number of taps inside the plane and its padding (never by those beyond,
            which `ceil_mode` makes), instead of those inside the plane.
        divisor_override: what an average divides by instead, not 0.

    Raises:
        RegionError: the divisor is 0 or no integer.
    """
    axes, divisors = [], []
    for axis, size in enumerate(geometry.plane):
        step = geometry.dilation[axis] if geometry.kernel[axis] > 1 else 1
        before, after = geometry.pads[axis]
        origin = np.arange(geometry.output[axis]) * geometry.stride[axis] - before
        axes.append(Progressions(size, origin, np.array([geometry.kernel[axis]]), step))
        if count_include_pad:
            divisors.append(np.minimum(geometry.kernel[axis], -((origin - (size + after)) // step)).astype(np.float64))
    if divisor_override is not None:
        if integer("divisor_override", divisor_override, -LARGEST) == 0:
            raise RegionError("divisor_override: expected any integer but 0, got 0")
        divisors = [np.ones(output) for output in geometry.output]
        divisors[0] *= divisor_override
    return Grid(geometry.plane, tuple(axes), tuple(divisors) or None)


def _explicit_pads(padding: object, kernels: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    axes = len(kernels)
    if isinstance(padding, Sequence) and padding and isinstance(padding[0], Sequence):
        if len(padding) != axes or any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in padding):
            raise RegionError(f"padding: expected a pair (before, after) for each of the {axes} pooled axes")
        pads = tuple((integer("padding", pair[0], 0), integer("padding", pair[1], 0)) for pair in padding)
    else:
        pads = tuple((pad, pad) for pad in per_axis("padding", padding, axes, 0))
    for pair, kernel in zip(pads, kernels, strict=True):
        if max(pair) > kernel // 2:
            raise RegionError(f"padding: expected at most half the kernel of {kernel}, got {max(pair)}")
    return pads


def _windows(size: int, extent: int, stride: int, pads: tuple[int, int], *, ceil_mode: bool) -> int:
    room = size + sum(pads) - extent
    output = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (output - 1) * stride >= size + pads[0]:
        output -= 1
    if output < 1:
        raise RegionError(
            f"kernel: a window of {shown(extent)} cells is larger than the plane's {size} on that axis"
            + (f" with padding {pads[0]} + {pads[1]}" if any(pads) else "")
        )
    return output

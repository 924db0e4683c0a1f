"""Operators that look at neighbours: convolutions, poolings, paddings and slices, as windows along each axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphs.anysize.domains import Axes, Axis, Batch, Cells, Fixed, Unknown, describe
from graphs.anysize.sizes import Number, Size, calculate, evaluate, is_sized, same, sample
from graphs.anysize.view import View, place

_MOST_CUT = 16
"""Cells that a Slice whose end is computed from the size leaves out behind; where it leaves out more, it takes a part."""


@dataclass(frozen=True)
class Window:
    """What an operator looks at along one axis.

    Cell j of the result sees cells j·stride − before + t·dilation, t = 0 … kernel − 1.

    Attributes:
        kernel: cells that one window has.
        stride: cells from window to window.
        before: padding in front; negative takes cells away.
        after: padding behind.
        dilation: cells from one tap to the next.
        ceil: a last window may hang over the padding, if it begins before it (ceil_mode).
    """

    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil: bool = False

    @property
    def span(self) -> int:
        """Distance from a window's first cell to its last."""
        return self.dilation * (self.kernel - 1)

    @property
    def floor(self) -> int:
        """As `reach` without ceil_mode: p₀ + p₁ − d·(k−1) − 1."""
        return self.before + self.after - self.span - 1

    @property
    def reach(self) -> int:
        """What makes n cells into floor((n + reach) / stride) + 1.

        With ceil_mode the quotient is rounded up, less one if that window would begin in the padding behind:
        min(⌈(n+a)/s⌉, ⌊(n+p₀−1)/s⌋) + 1, both being floors of n and a constant. As ONNX Runtime and torch compute it.
        """
        return min(self.floor + self.stride - 1, self.before - 1) if self.ceil else self.floor

    @property
    def overhang(self) -> int:
        """How many cells behind an image's last one a window of the image may look at."""
        return self.after + self.reach - self.floor

    @property
    def trivial(self) -> bool:
        """Whether every cell sees itself alone."""
        return self == Window(dilation=self.dilation) and self.kernel == 1

    def after_it(self, axis: Axis) -> Axis:
        """Give the axis of the result.

        Raises:
            Unknown: windows over an axis that has none.
        """
        if self.trivial:
            return axis
        if isinstance(axis, Fixed) and axis.size is not None:
            return Fixed((axis.size + self.reach) // self.stride + 1)
        if not isinstance(axis, Cells):
            raise Unknown(f"it looks at neighbours along {describe((axis,))}")
        if axis.level.window is not None:
            raise Unknown("it looks at neighbours in a part of the map")
        level, step = axis.level.step(self.stride, self.reach), axis.level.stride
        first, last = axis.first - self.before * step, axis.last + (self.span - self.before) * step
        # A Slice takes cells off every canvas: none are before its first one, and what it leaves out behind is not there.
        front = max(0, axis.front + self.before * step)
        back = max(axis.back + (self.span - self.before) * step, -level.offset - 1)
        return Cells(level, first, last, front, back)


def windows(view: View) -> tuple[Window, ...]:
    """Windows of a Conv, MaxPool, AveragePool or LpPool along its spatial axes.

    Raises:
        Unknown: the padding depends on the size (auto_pad SAME with a stride), or an attribute is missing.
    """
    node = view.node
    kernel = view.integers("kernel_shape")
    if kernel is None:
        if node.op_type != "Conv":
            raise Unknown("it has no kernel_shape")
        kernel = tuple(size for axis in view.axes(1)[2:] if isinstance(axis, Fixed) and (size := axis.size))
    rank = len(kernel)
    strides = view.integers("strides") or (1,) * rank
    dilations = view.integers("dilations") or (1,) * rank
    pads = view.integers("pads") or (0,) * (2 * rank)
    auto = view.text("auto_pad", "NOTSET")
    ceil = node.op_type != "Conv" and bool(view.integer("ceil_mode", 0))
    result = []
    for axis in range(rank):
        k, s, d = kernel[axis], strides[axis], dilations[axis]
        before, after = pads[axis], pads[rank + axis]
        if auto in {"VALID", "SAME_UPPER", "SAME_LOWER"}:
            before = after = 0
        if auto.startswith("SAME") and (k > 1 or s > 2):  # for one tap, ONNX Runtime may pad by less than nothing
            if s > 1:
                raise Unknown(f"auto_pad {auto} with stride {s}: the padding depends on the image's size")
            if d > 1:  # ONNX Runtime pads a pooling as if it were not dilated, and runs no such Conv
                raise Unknown(f"auto_pad {auto} with dilation {d}: runtimes do not agree on the padding")
            small, large = d * (k - 1) // 2, (d * (k - 1) + 1) // 2
            before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
        result.append(Window(k, s, before, after, d, ceil and not auto.startswith("SAME")))
    return tuple(result)


def window_axes(view: View, channels: Axis) -> Axes:
    """Axes after a Conv or a pooling.

    Args:
        view: of the node.
        channels: axis 1 of the result.

    Raises:
        Unknown: the axes do not allow it.
    """
    axes, looks = view.axes(0), windows(view)
    if len(axes) != len(looks) + 2:
        raise Unknown(f"windows of {len(looks)} axes over {describe(axes)}")
    if not (isinstance(axes[0], Batch | Fixed) and isinstance(axes[1], Fixed)):
        raise Unknown(f"it takes {describe(axes)} for batch and channels")
    return (axes[0], channels, *(look.after_it(axis) for look, axis in zip(looks, axes[2:], strict=True)))


def pad_windows(view: View) -> tuple[Window, ...]:
    """Windows of a Pad, one an axis: kernel 1 with padding.

    Raises:
        Unknown: pads that are computed at run time, or a mode other than constant where it pads.
    """
    rank = len(view.axes(0))
    try:
        pads = view.listed("pads", 1) if view.opset >= 11 else view.integers("pads")
    except Unknown:
        raise Unknown("its padding is computed from the image's size at run time (SAME with a stride)") from None
    if pads is None:
        raise Unknown("it has no pads")
    axes = tuple(int(n) for n in view.array(3)) if view.has(3) else tuple(range(rank))
    result = [Window()] * rank
    for index, axis in enumerate(axes):
        result[place(axis, rank)] = Window(before=pads[index], after=pads[len(axes) + index])
    if view.has(2):
        view.array(2)
    mode = view.text("mode", "constant")
    if mode != "constant" and any(window != Window() for window in result):
        raise Unknown(f"padding by {mode!r} repeats the image's own border, which a canvas does not have there")
    return tuple(result)


def slice_axes(view: View) -> tuple[Axes, bool]:
    """Axes after a Slice, and whether it takes a part of the cells that depends on the size (a pyramid's bin).

    Raises:
        Unknown: a part of the map that cannot be followed.
    """
    axes = list(view.axes(0))
    starts, ends = (view.numbers(index).ravel().tolist() for index in (1, 2))
    given = view.array(3).ravel().tolist() if view.has(3) else list(range(len(starts)))
    steps = view.array(4).ravel().tolist() if view.has(4) else [1] * len(starts)
    part = other = False
    for start, end, where, step in zip(starts, ends, given, steps, strict=True):
        index = place(where, len(axes))
        axis = axes[index]
        if isinstance(axis, Fixed) and not is_sized(start) and not is_sized(end) and axis.size is not None:
            if isinstance(start, Size) or isinstance(end, Size):
                raise Unknown("it cuts channels at a number that depends on the batch")
            axes[index] = Fixed(len(range(axis.size)[start:end:step]))
            other = True
            continue
        whole = start == 0 and (same(end, axis.count) or (isinstance(end, int) and end >= 2**31 - 1))
        if whole and step == 1:
            continue
        if not isinstance(axis, Cells) or step < 1 or axis.level.window is not None:
            raise Unknown(f"it takes a part of {describe((axis,))}")
        look = slice_window(start, end, step, axis)
        if look is not None:
            axes[index] = look.after_it(axis)
            other = True
        else:
            axes[index] = _part(start, end, step, axis)
            part = True
    if part and other:
        raise Unknown("it takes a part of the map and of something else at once")
    return tuple(axes), part


def slice_window(start: Size | Number, end: Size | Number, step: int, axis: Cells) -> Window | None:
    """Give a Slice with constant distances from both ends as a window of kernel 1; None where it is none."""
    if not isinstance(start, int) or start < 0:
        return None
    if same(end, axis.count) or (isinstance(end, int) and end >= 2**31 - 1):
        return Window(stride=step, before=-start)
    if isinstance(end, Size):
        end = next((-cut for cut in range(1, _MOST_CUT + 1) if same(end, calculate("Add", axis.count, -cut))), 0)
    if isinstance(end, int) and end < 0:
        return Window(stride=step, before=-start, after=end)
    return None


def _part(start: Size | Number, end: Size | Number, step: int, axis: Cells) -> Cells:
    if step != 1 or isinstance(start, float) or isinstance(end, float) or not (is_sized(end) or is_sized(start)):
        raise Unknown(f"it takes a fixed part of {describe((axis,))}")
    first, last, count = (evaluate(number, sample()) for number in (start, end, axis.count))
    there = count >= 1
    if not bool(((first >= 0) & (first <= last) & (last <= count))[there].all()):
        raise Unknown(f"it takes a part of {describe((axis,))} that is not always within it")
    return replace(axis, level=replace(axis.level, window=(start, end)))

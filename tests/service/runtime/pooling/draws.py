"""Random requests of poolings, and the regions that they mean by tests/reference_windows.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphs.operators.catalogue import CATALOGUE
from tests import reference_windows as reference

FLOATS = ("float16", "float32", "float64")
DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

PARAMETERS: dict[str, dict[str, list[Any]]] = {
    "lp": {"p": [0.5, 1, 2, 3, 7.5], "form": ["sum", "mean"]},
    "gem": {"p": [3, 1, -1, 0.5, 20]},
    "lse": {"r": [1, 0.1, 10], "form": ["mean", "sum"]},
    "softmax": {"alpha": [1, -2, 0, 5]},
    "softpool": {"tau": [1, 0.2, 5]},
    "boltzmann": {"beta": [1, -1]},
    "power": {"n": [1, 0, 2.5]},
}
"""Values to draw from, for operators that have parameters."""

STATISTICS = [name for name in reference.STATISTICS if name in CATALOGUE]
INFINITIES = {"max", "min", "range", "avg", "sum", "lp"}
"""Operators whose formula, as it is written in the reference, says what infinities give."""


@dataclass
class Draw:
    """A request, and what it should be pooled over.

    Attributes:
        op: the operator.
        x: the tensor, as it is sent.
        rows: (B,L), the same numbers as the reference wants them.
        parameters: of the request.
        arrays: mask and labels.
        samples: for each row, its regions; None: there is no window, the request must be refused.
        own: the operator's parameters.
        torch: what torch's own pooling takes for this, if it can: kernel, stride, padding, … or output_size.
    """

    op: str
    x: np.ndarray
    rows: np.ndarray
    axes: int
    lead: tuple[int, ...]
    plane: tuple[int, ...]
    parameters: dict[str, Any]
    arrays: dict[str, np.ndarray]
    samples: list[reference.Regions] | None
    own: dict[str, Any]
    torch: dict[str, Any] = field(default_factory=dict)

    def to_rows(self, y: np.ndarray, regions: tuple[int, ...]) -> np.ndarray:
        """An answer as (B,R)."""
        if self.parameters.get("layout") == "channels_last":
            y = np.moveaxis(y, -1, len(self.lead) - 1)
        assert y.shape == (*self.lead, *regions), (y.shape, self.lead, regions)
        return y.reshape(len(self.rows), math.prod(regions))


def numbers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], *, ties: bool, size: float) -> np.ndarray:
    """Normal floats, or integers over the dtype's whole range, its ends among them."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        x = rng.integers(-2, 3, shape).astype(np.float64) if ties else rng.standard_normal(shape) * size
        return np.clip(x, -6e4, 6e4).astype(kind)
    bounds = np.iinfo(kind)
    if ties:
        return rng.integers(0 if kind.kind == "u" else -2, 3, shape).astype(kind)
    x = rng.integers(bounds.min, bounds.max, shape, dtype=kind, endpoint=True)
    ends = rng.random(shape)
    return np.where(ends < 0.1, bounds.min, np.where(ends > 0.9, bounds.max, x)).astype(kind)


@st.composite
def draws(draw: st.DrawFn, *, gradient: bool = False) -> Draw:
    """Any request that the reference can answer."""
    op = draw(st.sampled_from(STATISTICS))
    dtype = draw(st.sampled_from(FLOATS if gradient else DTYPES))
    axes = draw(st.integers(1, 3))
    plane = tuple(draw(st.lists(st.integers(1, (40, 12, 6)[axes - 1]), min_size=axes, max_size=axes)))
    lead = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parameters: dict[str, Any] = {"spatial": axes} if axes != 2 or draw(st.booleans()) else {}
    if "spatial" not in parameters and len(lead) + axes < 2:
        parameters["spatial"] = axes
    own = {name: draw(st.sampled_from(values)) for name, values in PARAMETERS.get(op, {}).items()}
    size = 1.0 if gradient else draw(st.sampled_from([1.0, 1e-3, 30.0, 1e4] if op in INFINITIES else [1.0, 0.1, 3.0]))
    ties = draw(st.booleans()) and not (gradient and op in {"power", "stochastic"})  # these have a kink at 0
    rows = numbers(rng, dtype, (math.prod(lead), math.prod(plane)), ties=ties, size=size)
    if np.dtype(dtype).itemsize == 8 and np.dtype(dtype).kind in "iu" and op not in {"max", "min"}:
        rows = rows // 2**20 if op == "sum" else (rows % 10**6).astype(dtype)
    if np.dtype(dtype).kind == "f" and rows.size and draw(st.booleans()):
        odd = rng.random(rows.shape)
        share = draw(st.sampled_from([0.02, 0.2, 0.7]))
        if not gradient and op in INFINITIES:
            rows = np.where(odd < share / 3, np.inf, np.where(odd < share * 2 / 3, -np.inf, rows)).astype(dtype)
            rows = np.where((odd < share) & (odd >= share * 2 / 3), np.nan, rows).astype(dtype)
        elif not gradient:
            rows = np.where(odd < share, np.nan, rows).astype(dtype)
    if not gradient and draw(st.booleans()):
        parameters["nan"] = "omit"
    regions, torch_can = _regions(draw, op, plane, parameters, gradient=gradient)
    arrays: dict[str, np.ndarray] = {}
    prefix = lead[: draw(st.integers(0, max(0, len(lead))))]
    samples = [regions] * len(rows) if regions is not None else None
    if regions is not None and draw(st.integers(0, 5)) == 0:
        torch_can = {}
        count = draw(st.integers(1, 5))
        arrays["labels"] = rng.integers(-1, count, (*prefix, *plane))
        parameters |= {"segments": count}
        for name in (
            *("kernel", "stride", "padding", "dilation", "ceil_mode", "count_include_pad", "divisor_override"),
            *("output_size", "levels", "strips"),
        ):
            parameters.pop(name, None)
        flat = arrays["labels"].reshape(math.prod(prefix), *plane)
        made = [reference.segments(labels, count) for labels in flat]
        samples = [made[row * len(flat) // len(rows)] for row in range(len(rows))]
    if samples is not None and draw(st.integers(0, 3)) == 0:
        torch_can = {}
        soft = np.dtype(dtype).kind == "f" and draw(st.booleans())
        mask = rng.random((*prefix, *plane)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
        arrays["mask"] = mask * rng.random(mask.shape) if soft else mask
        flat_mask = arrays["mask"].reshape(math.prod(prefix), *plane)
        each = len(rows) // max(1, len(flat_mask)) if len(flat_mask) else 1
        samples = [reference.weighed(regions, flat_mask[row // max(1, each)]) for row, regions in enumerate(samples)]
    tensor = rows.reshape(*lead, *plane)
    if lead and draw(st.booleans()):
        parameters["layout"] = "channels_last"
        tensor = np.moveaxis(tensor, len(lead) - 1, -1)
        if draw(st.booleans()):
            tensor = np.ascontiguousarray(tensor)
    return Draw(op, tensor, rows, axes, lead, plane, parameters | own, arrays, samples, own, torch_can)


def _regions(
    draw: st.DrawFn, op: str, plane: tuple[int, ...], parameters: dict[str, Any], *, gradient: bool
) -> tuple[reference.Regions | None, dict[str, Any]]:
    """Draw a way of naming regions; adds to the parameters. None: there is no window."""
    axes = len(plane)
    systems = ["whole", "windows", "windows", "windows", "adaptive", "levels"] + ["strips"] * (axes == 2)
    system = draw(st.sampled_from(systems))
    if system == "whole":
        return reference.whole(plane), {}
    if system == "strips":
        parameters["strips"] = True
        return reference.strips(plane), {}
    if system == "levels":
        levels = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        parameters["levels"] = levels if len(levels) > 1 or draw(st.booleans()) else levels[0]
        return reference.pyramid(plane, levels), {}
    if system == "adaptive":
        asked = _spread(draw, st.integers(1, 7), axes, parameters, "output_size")
        if axes > 1 and draw(st.integers(0, 4)) == 0:
            asked[0] = None
            parameters["output_size"] = list(asked)
        output = [size if n is None else n for size, n in zip(plane, asked, strict=True)]
        return reference.adaptive(plane, output), {"output_size": output}
    return _windows(draw, op, plane, parameters, gradient=gradient)


def _windows(
    draw: st.DrawFn, op: str, plane: tuple[int, ...], parameters: dict[str, Any], *, gradient: bool
) -> tuple[reference.Regions | None, dict[str, Any]]:
    axes = len(plane)
    kernel = _spread(draw, st.integers(1, (9, 5, 4)[axes - 1]), axes, parameters, "kernel")
    stride = list(kernel)
    if draw(st.booleans()):
        stride = _spread(draw, st.integers(1, 5), axes, parameters, "stride")
    dilation = [1] * axes
    if draw(st.integers(0, 2)) == 0:
        dilation = _spread(draw, st.integers(1, 3), axes, parameters, "dilation")
    way = draw(st.sampled_from(["none", "numbers", "pairs", "same", "valid"]))
    pads = [(0, 0)] * axes
    if way == "numbers":
        each = [draw(st.integers(0, k // 2)) for k in kernel]
        pads = [(pad, pad) for pad in each]
        parameters["padding"] = each if len(set(each)) > 1 else each[0]
    elif way == "pairs":
        pads = [(draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel]
        parameters["padding"] = [list(pair) for pair in pads]
    elif way in {"same", "valid"}:
        parameters["padding"] = way
        if way == "same":
            pads = [reference.same_pads(*sizes) for sizes in zip(plane, kernel, stride, dilation, strict=True)]
    ceil_mode = way not in {"same", "valid"} and draw(st.booleans())
    if ceil_mode:
        parameters["ceil_mode"] = True
    counted, override = False, None
    if op == "avg":
        counted = draw(st.booleans())
        override = draw(st.sampled_from([None, None, None, 1, 7]))
        parameters |= {"count_include_pad": counted} | ({"divisor_override": override} if override else {})
    made = reference.windows(
        plane,
        kernel,
        stride,
        pads,
        dilation,
        ceil_mode=ceil_mode,
        count_include_pad=counted,
        divisor_override=override,
    )
    symmetric = all(before == after and before <= k // 2 for (before, after), k in zip(pads, kernel, strict=True))
    inside = all(
        d * (k - 1) < size + (0 if op == "avg" and axes == 3 else 2 * before)
        for size, k, d, (before, _) in zip(plane, kernel, dilation, pads, strict=True)
    )  # torch refuses windows that reach further, in avg_pool3d's gradient into the padding, though its rule for the size has them
    if made is None or not symmetric or not inside or (op == "avg" and max(dilation) > 1):
        return made, {}
    given = {"kernel_size": kernel, "stride": stride, "padding": [before for before, _ in pads], "ceil_mode": ceil_mode}
    if op == "avg" and axes == 1:
        return made, {} if override else given | {"count_include_pad": counted}
    if op == "avg":
        return made, given | {"count_include_pad": counted, "divisor_override": override}
    return made, given | {"dilation": dilation}


def _spread(
    draw: st.DrawFn, one: st.SearchStrategy[int], axes: int, parameters: dict[str, Any], name: str
) -> list[Any]:
    """One number for all axes or one for each, as a number, a list, or the text of a query."""
    if draw(st.booleans()):
        value = draw(one)
        parameters[name] = str(value) if draw(st.booleans()) else value
        return [value] * axes
    values = [draw(one) for _ in range(axes)]
    query = axes > 1 and draw(st.booleans())
    parameters[name] = ",".join(map(str, values)) if query else values
    return list(values)

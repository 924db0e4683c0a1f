"""Windows by ONNX's own pooling nodes: what the fast kernels compute exactly, several times faster than gathered cells.

Only finite numbers may come in: MaxPool loses NaN and some −∞ (ONNX Runtime 1.31). Pads are explicit: `auto_pad` is wrong there
with dilation and with strides larger than the kernel.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from graphs.operators.expression import emit, placeholder
from graphs.operators.graph import Graph
from graphs.operators.regions.windows import WindowGeometry

NATIVE = frozenset({"max", "min", "avg", "sum"})

_MOST_TAPS = 256
"""AveragePool adds in float32 one after the other: 2e-2 off at 4e6 taps, below 1e-6 here. Beyond, cells are added in float64."""


def runs_natively(name: str, geometry: WindowGeometry, dtype: str) -> bool:
    """Say whether windows of this operator have a node of their own.

    Args:
        name: of the operator.
        geometry: resolved.
        dtype: of the input.
    """
    extents = [d * (k - 1) + 1 for k, d in zip(geometry.kernel, geometry.dilation, strict=True)]
    # With a dilation wider than the plane, taps of a window that begins before the plane may step over all of it: there is
    # nothing in it then, for which MaxPool gives the lowest number.
    fits = all(
        max(before, after) < kernel and extent <= size + before + after and (not before or dilation <= size)
        for (before, after), kernel, dilation, extent, size in zip(
            geometry.pads, geometry.kernel, geometry.dilation, extents, geometry.plane, strict=True
        )
    )
    if not fits or name not in NATIVE or len(geometry.plane) > 3:
        return False
    if name in {"max", "min"}:
        kinds = {"float16", "float32", "float64"} | ({"int8", "uint8"} if name == "max" else set())
        return dtype in kinds
    exact_sum = name == "avg" or not geometry.ceil_mode
    if name == "sum" and dtype == "float16":
        return False  # it answers with float32
    return dtype in {"float16", "float32"} and math.prod(geometry.kernel) <= _MOST_TAPS and exact_sum


def compose_native(
    name: Literal["max", "min", "avg", "sum"], geometry: WindowGeometry, dtype: str, *, count_include_pad: bool
) -> bytes:
    """Write the graph: `x` (B,1,plane) → `y` (B,1,output), of the same dtype; 16-bit floats are pooled in float32."""
    arithmetic = "float32" if dtype == "float16" else dtype
    graph = Graph(arithmetic)
    axes = [f"d{axis}" for axis in range(len(geometry.plane))]
    x = placeholder(graph, "x", ("B", 1, *axes), dtype)
    x = x if dtype == arithmetic else x.cast(arithmetic)
    attributes: dict[str, Any] = {
        "kernel_shape": list(geometry.kernel),
        "strides": list(geometry.stride),
        "dilations": list(geometry.dilation),
        "pads": [before for before, _ in geometry.pads] + [after for _, after in geometry.pads],
        "ceil_mode": int(geometry.ceil_mode),
    }
    if name in {"max", "min"}:
        y = emit("MaxPool", (-x if name == "min" else x,), (False,) * x.rank, **attributes)
        y = -y if name == "min" else y
    else:
        counted = int(count_include_pad or name == "sum")
        y = emit("AveragePool", (x,), (False,) * x.rank, count_include_pad=counted, **attributes)
        y = y * float(math.prod(geometry.kernel)) if name == "sum" else y
    return graph.build({"y": (y if dtype == arithmetic else y.cast(np.dtype(dtype))).value})

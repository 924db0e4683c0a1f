"""Unpooling: the pseudo-inverse that decoders use. The answer of a pooling goes in, a plane of the former size comes out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graphs.operators.compose import compose_scatter
from graphs.operators.regions.adaptive import adaptive
from graphs.operators.regions.block import RegionError, Regions
from graphs.operators.regions.transpose import readers
from graphs.operators.regions.windows import window_geometry, windows
from graphs.operators.request import Grid, Padding, RegionParameters, Sizes
from service.errors import InvalidParameter, InvalidTensor, PayloadTooLarge
from service.runtime.pooling.layout import Layout, layout_of
from service.runtime.pooling.prepared import Pooled
from service.runtime.pooling.sessions import Sessions

UNPOOLERS = ("max", "avg", "sum", "nearest")

_TABLE_CELLS = 2**18


class UnpoolParameters(BaseModel):
    """Parameters of /v1/unpool: those of the pooling that is undone, and the size that it had."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spatial: int | None = RegionParameters.model_fields["spatial"]  # type: ignore[assignment]
    layout: Literal["channels_first", "channels_last"] = "channels_first"
    kernel: Sizes = Field(None, description="Of the pooling.")
    stride: Sizes = Field(None, description="Of the pooling; by default the kernel.")
    padding: Padding = Field(0, description="Of the pooling.")
    dilation: Sizes = Field(None, description="Of the pooling; by default 1.")
    ceil_mode: bool = Field(False, description="Of the pooling.")
    output_size: Grid = Field(
        None, description="Size of the plane before pooling; by default (o − 1)·stride − 2·padding + kernel."
    )


def prepare_unpool(  # noqa: PLR0917 – as Pooler.prepare
    op: str,
    given: Mapping[str, object],
    arrays: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    sessions: Sessions,
    max_elements: int,
) -> tuple[int, int, Callable[[np.ndarray, float], Pooled]]:
    """Check a request and say its work, the numbers in its answer, and how to run it.

    `max` puts each value where `indices` say it came from, 0 elsewhere, the last of several (Zeiler, Fergus 2013, arXiv 1311.2901).
    `avg` gives each cell the mean of the windows that cover it, `sum` an even share of each: both are undone exactly by the pooling
    where windows are disjoint. `nearest` repeats values up to `output_size`.

    Raises:
        InvalidParameter: 422. InvalidTensor: 422; indices. PayloadTooLarge: 413.
    """
    if op not in UNPOOLERS:
        nearest = difflib.get_close_matches(op[:64], UNPOOLERS, n=1, cutoff=0.0)[0]
        raise InvalidParameter(f"op: expected one of {', '.join(UNPOOLERS)}; the nearest is {nearest}")
    try:
        parameters = UnpoolParameters.model_validate(dict(given))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise InvalidParameter(
            "; ".join(
                f"unknown parameter {str(d['loc'][0])[:64]!r} of unpool; known are: {', '.join(UnpoolParameters.model_fields)}"
                if d["type"] == "extra_forbidden"
                else f"{d['loc'][0]}: {d['msg']}"
                for d in details
            )
        ) from None
    layout = layout_of(shape, RegionParameters(spatial=parameters.spatial, layout=parameters.layout))
    plane = _plane(parameters, layout.plane)
    size = math.prod(plane) * layout.rows
    if size > max_elements:
        raise PayloadTooLarge(f"expected at most {max_elements} numbers in an answer, this one would have {size}")
    work = math.prod(shape) + size
    if op == "max":
        indices = arrays.get("indices")
        if indices is None:
            raise InvalidParameter(
                "indices: expected where each value came from, as return_indices gives them; got none"
            )
        places = _checked(indices, layout, math.prod(plane))
        return work, size, lambda x, deadline: Pooled(_put_back(x, places, layout, plane))
    if "indices" in arrays:
        raise InvalidParameter(f"indices: only with op=max, not {op!r}")
    if op == "nearest":
        return work, size, lambda x, deadline: Pooled(_repeat(x, layout, plane))
    regions = _covering(parameters, plane, layout.plane)
    return work, size, lambda x, deadline: Pooled(_spread(x, layout, plane, regions, sessions, share=op == "sum"))


def _plane(parameters: UnpoolParameters, pooled: tuple[int, ...]) -> tuple[int, ...]:
    """The size before pooling."""
    axes = len(pooled)
    if parameters.output_size is not None:
        given = parameters.output_size
        sizes = given if isinstance(given, list) else [given] * axes
        if len(sizes) != axes or None in sizes:
            raise InvalidParameter(f"output_size: expected one number or {axes}, got {len(sizes)}")
        return tuple(size for size in sizes if size is not None)
    if parameters.kernel is None or not isinstance(parameters.padding, int):
        raise InvalidParameter(
            "output_size: expected the size before pooling, or a kernel (and padding) that it follows from"
        )

    def each(value: Any, default: list[int]) -> list[int]:
        listed = default if value is None else value if isinstance(value, list) else [value] * axes
        if len(listed) != axes:
            raise InvalidParameter(f"expected one number or {axes}, one per pooled axis, got {len(listed)}")
        return listed

    kernel = each(parameters.kernel, [])
    stride, dilation = each(parameters.stride, kernel), each(parameters.dilation, [1] * axes)
    sizes = [
        (o - 1) * s - 2 * parameters.padding + d * (k - 1) + 1
        for o, k, s, d in zip(pooled, kernel, stride, dilation, strict=True)
    ]
    if min(sizes) < 1:
        raise InvalidParameter(f"expected a plane of at least one cell before pooling, it follows as {sizes}")
    return tuple(sizes)


def _covering(parameters: UnpoolParameters, plane: tuple[int, ...], pooled: tuple[int, ...]) -> Regions:
    regions: Regions
    if parameters.kernel is None:
        regions = adaptive(plane, list(pooled))
    else:
        regions = windows(
            window_geometry(
                plane,
                parameters.kernel,
                parameters.stride,
                parameters.padding,  # type: ignore[arg-type]  # pairs come as lists; window_geometry checks them
                dilation=parameters.dilation or 1,
                ceil_mode=parameters.ceil_mode,
            )
        )
    if regions.shape != pooled:
        raise RegionError(
            f"expected a tensor whose pooled axes are {list(regions.shape)}, as this pooling gives, got {list(pooled)}"
        )
    return regions


def _checked(indices: np.ndarray, layout: Layout, cells: int) -> np.ndarray:
    if indices.dtype.kind not in "iu":
        raise InvalidTensor(f"indices: expected integers, got {indices.dtype}")
    if indices.shape != layout.shape:
        raise InvalidTensor(f"indices: expected the tensor's shape {list(layout.shape)}, got {list(indices.shape)}")
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= cells):
        raise InvalidTensor(f"indices: expected 0 … {cells - 1}, flat in each plane, got some outside")
    return layout.to_rows(indices).astype(np.int64)


def _put_back(x: np.ndarray, places: np.ndarray, layout: Layout, plane: tuple[int, ...]) -> np.ndarray:
    out = np.zeros((layout.rows, math.prod(plane)), x.dtype)
    rows = np.arange(layout.rows)[:, None]
    out[rows, places] = layout.to_rows(x)  # NumPy writes in order: the last of equals stays
    return layout.from_rows(out, layout.lead, plane)


def _repeat(x: np.ndarray, layout: Layout, plane: tuple[int, ...]) -> np.ndarray:
    """Cell i of L takes value ⌊i·o/L⌋, as torch.nn.functional.interpolate(mode="nearest") does by exact integers."""
    y = layout.to_rows(x).reshape(layout.rows, *layout.plane)
    for axis, (size, count) in enumerate(zip(plane, layout.plane, strict=True)):
        y = np.take(y, np.arange(size) * count // size, axis=axis + 1)
    return layout.from_rows(y, layout.lead, plane)


def _spread(
    x: np.ndarray, layout: Layout, plane: tuple[int, ...], regions: Regions, sessions: Sessions, *, share: bool
) -> np.ndarray:
    kind = kind_of_float(x.dtype)
    values = layout.to_rows(x).astype(kind)
    if share:
        values = values / np.maximum(regions.counts(), 1).astype(kind)
    out = np.zeros((layout.rows, math.prod(plane)), kind)
    cover = np.zeros(math.prod(plane), np.int64)
    session = sessions.get(("scatter", kind), lambda: compose_scatter(kind, kind))
    numbers = np.arange(values.shape[1])
    for block in regions.blocks(_TABLE_CELLS):
        assert block.index is not None
        width = block.index.shape[1]
        here = np.ascontiguousarray(values[:, block.rows])
        for cells, read in readers(block.index, block.weight, out.shape[1], _TABLE_CELLS):
            which = np.minimum(read // width, len(numbers[block.rows])).astype(np.int64)
            out[:, cells] += session.run({"slots": here, "readers": which})[0]
            cover[cells] += (read < block.index.size).sum(axis=1)
    if not share:
        out /= np.maximum(cover, 1).astype(kind)
    answer = out.astype(x.dtype if x.dtype.kind == "f" else np.float32, copy=False)
    return layout.from_rows(answer, layout.lead, plane)


def kind_of_float(dtype: np.dtype) -> str:
    """The dtype that averages are computed in."""
    return "float32" if dtype in (np.float16, np.float32) else "float64"

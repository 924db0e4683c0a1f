"""Descriptors: features pooled by operators of the catalogue into one vector, of one length for every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from graphs.operators.catalogue import UnknownOperator, find
from graphs.operators.operator import Operator
from service.errors import InvalidParameter, ServiceError
from service.runtime.features import Grid
from service.runtime.pooling.pooler import Pooler

REGIONS = ("output_size", "levels", "boxes", "align", "sampling_ratio", "nan")
"""Parameters of the regions that a descriptor may have: as many of them for every picture."""

_WHY_NOT = {
    **dict.fromkeys(
        ("kernel", "stride", "padding", "dilation", "ceil_mode", "count_include_pad"), "windows are as many as fit"
    ),
    "divisor_override": "windows are as many as fit",
    "strips": "a map has as many rows and columns as its picture is large",
    "labels": "segments lie on a map whose size depends on the picture's",
    "segments": "segments lie on a map whose size depends on the picture's",
    "mask": "it would lie on a map whose size depends on the picture's",
    "groups": "pooling across channels keeps the map",
    "return_indices": "a descriptor is one vector",
    "return_counts": "a descriptor is one vector",
    "spatial": "features have two pooled axes",
    "layout": "features have their channels first",
    "spatial_scale": "boxes are in the picture's pixels",
}

_PLANES = ((5, 7), (12, 9))
"""Planes on which an operator must give as many numbers."""


@dataclass(frozen=True)
class _Part:
    """One operator with its parameters."""

    op: str
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class Recipe:
    """How features become a descriptor.

    Attributes:
        parts: operators; their answers stand one after the other.
        boxes: regions of interest in the picture's pixels, x1, y1, x2, y2, float64 (K,4); None where there are none.
    """

    parts: Sequence[_Part]
    boxes: np.ndarray | None

    def check(self, pooler: Pooler, channels: int, deadline: float) -> int:
        """Pool two small maps, and so find the descriptor's length, or what is wrong. Blocks.

        Raises:
            InvalidParameter: 422; out of range, or an operator whose answer has another length for another map.
            PayloadTooLarge: 413. DeadlineExceeded: 504.
        """
        total = 0
        for part in self.parts:
            arrays = {} if self.boxes is None else {"boxes": np.zeros_like(self.boxes)}
            pooled = [
                _run(pooler, part, np.zeros((channels, *plane), np.float32), arrays, deadline) for plane in _PLANES
            ]
            if len({one.size for one in pooled}) > 1:
                shapes = " and ".join("×".join(map(str, one.shape)) for one in pooled)
                maps = " and ".join("×".join(map(str, plane)) for plane in _PLANES)
                raise InvalidParameter(
                    f"pool: expected an operator that makes every map one length, {part.op!r} makes {shapes} numbers of "
                    f"maps of {maps}"
                )
            total += pooled[0].size
        return total

    def check_boxes(self, height: int, width: int) -> None:
        """Refuse boxes that do not lie in a picture.

        Raises:
            InvalidParameter: 422.
        """
        for place, (left, top, right, bottom) in enumerate(() if self.boxes is None else self.boxes.tolist()):
            if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
                raise InvalidParameter(
                    f"boxes[{place}]: expected 0 ≤ x1 ≤ x2 ≤ {width} and 0 ≤ y1 ≤ y2 ≤ {height}, the picture's pixels, got "
                    f"{left:g}, {top:g}, {right:g}, {bottom:g}"
                )

    def describe(self, pooler: Pooler, features: np.ndarray, grid: Grid, deadline: float) -> np.ndarray:
        """Pool the features of one picture. Blocks.

        Args:
            pooler: runs the operators.
            features: (C,h,w), float32.
            grid: of the network.
            deadline: on the clock of `time.monotonic`.

        Returns:
            (D,), float32: operator after operator, in each region after region, in each channel after channel.

        Raises:
            ServiceError: any that the pooler raises.
        """
        arrays = {}
        if self.boxes is not None:  # pixels to cells; x first
            strides = np.array([grid.columns.level.stride, grid.rows.level.stride] * 2, np.float64)
            plane = np.array([features.shape[2], features.shape[1]] * 2, np.float64)
            arrays["boxes"] = np.minimum(self.boxes / strides, plane)
        made = [_run(pooler, part, features, arrays, deadline).ravel() for part in self.parts]
        return np.concatenate(made).astype(np.float32, copy=False)


def _run(
    pooler: Pooler, part: _Part, features: np.ndarray, arrays: Mapping[str, np.ndarray], deadline: float
) -> np.ndarray:
    """Run one operator: (R,D) of R regions."""
    x = features[None]
    try:
        course = pooler.prepare("pool", part.op, part.parameters, arrays, x.shape, x.dtype)
        pooled = course.run(x, deadline).tensor[0]  # (D,), or (D,…) of regions
    except ServiceError as error:
        error.message = f"pool={part.op}: {error.message}"
        raise
    return np.ascontiguousarray(pooled.reshape(len(pooled), -1).T)


def read_recipe(names: Sequence[str], given: Mapping[str, object]) -> Recipe:
    """Read the operators of a request and share its parameters out among them.

    Args:
        names: of operators.
        given: parameters of regions and operators, JSON values or text from a query.

    Raises:
        InvalidParameter: 422; no operator of the name, one that takes more than features, or a parameter that none takes.
    """
    if not names:
        raise InvalidParameter("pool: expected names of operators, got none; /v1/pool/operators lists them")
    operators = [_operator(name) for name in names]
    taken = {name: set(operator.parameters.model_fields) for name, operator in zip(names, operators, strict=True)}
    for name in given:
        if name in REGIONS or any(name in fields for fields in taken.values()):
            continue
        if name in _WHY_NOT:
            raise InvalidParameter(f"{name}: expected none for a descriptor: {_WHY_NOT[name]}")
        known = sorted({*REGIONS, *(field for fields in taken.values() for field in fields)})
        raise InvalidParameter(
            f"unknown parameter {name[:64]!r} of pool={','.join(names)}; known are: model, version, pool, normalize, "
            f"{', '.join(known)}"
        )
    shared = {name: value for name, value in given.items() if name in REGIONS and name != "boxes"}
    parts = []
    for name in names:
        own = {key: value for key, value in given.items() if key in taken[name]}
        parts.append(_Part(name, shared | own))
    return Recipe(parts, _boxes(given["boxes"]) if given.get("boxes") is not None else None)


def _operator(name: str) -> Operator:
    try:
        operator = find(name)
    except UnknownOperator as error:
        raise InvalidParameter(f"pool: {error}") from None
    if operator.weights:
        raise InvalidParameter(
            f"pool: {name!r} takes {', '.join(operator.weights)} beside the features, which a descriptor has no place for; "
            "/v1/pool takes them"
        )
    return operator


def _boxes(value: object) -> np.ndarray:
    """Read boxes: nested lists, or the same as JSON text."""
    try:
        rows: Any = orjson.loads(value) if isinstance(value, str) else value
        boxes = np.array(rows, np.float64)
    except (ValueError, TypeError):
        boxes = np.empty(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes) or not np.isfinite(boxes).all():
        raise InvalidParameter("boxes: expected [[x1, y1, x2, y2], …] in pixels of the picture, got something else")
    return boxes

"""The arrays that operators with weights take in a request: their shapes, checked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphs.operators.operator import Operator


class WeightError(ValueError):
    """An array is missing, or of a shape, or has numbers, that the operator cannot take; says which and what came."""


def checked_weights(
    operator: Operator, arrays: Mapping[str, object], channels: int, cells: int
) -> dict[str, np.ndarray]:
    """Check the arrays of an operator against each other and against the tensor.

    Args:
        operator: of the catalogue.
        arrays: as they came, by name; those of other names are left alone.
        channels: of the tensor.
        cells: of its plane.

    Returns:
        For each of `operator.weights` the array, with the leading axes of length 1 that were left out.

    Raises:
        WeightError: one is missing, has another number of axes or other lengths, or numbers that are not finite or not positive.
    """
    lengths: dict[str, tuple[int, str]] = {
        "C": (channels, "channels of the tensor"),
        "L": (cells, "cells of its plane"),
    }
    checked = {}
    for name, axes in operator.weights.items():
        wanted = f"[{', '.join(axes)}]"
        given = arrays.get(name)
        if not isinstance(given, np.ndarray):
            raise WeightError(f"{operator.name}: expected a tensor {name!r} of shape {wanted}, got none")
        if given.dtype.kind not in "uif":
            raise WeightError(f"{name}: expected numbers, got {given.dtype}")
        array = given.reshape((1,) * (len(axes) - given.ndim) + given.shape) if 0 < given.ndim < len(axes) else given
        if array.ndim != len(axes) or 0 in array.shape:
            raise WeightError(f"{name}: expected the shape {wanted}, got {list(given.shape)}")
        for axis, length in zip(axes, array.shape, strict=True):
            due, source = lengths.setdefault(axis, (length, f"as in {name!r}"))
            if length != due:
                raise WeightError(
                    f"{name}: expected the shape {wanted} with {axis} = {due} ({source}), got {list(given.shape)}"
                )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise WeightError(f"{name}: expected finite numbers, got NaN or infinity")
        if name in operator.positive and not (array > 0).all():
            raise WeightError(f"{name}: expected numbers above 0, got {array.min():g}")
        checked[name] = array
    return checked

"""The classification extension: the greatest numbers of an output as strings `value:index:label`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.codecs.tensors.dtypes import Tensor
from service.errors import PayloadTooLarge

MAX_STRINGS = 1_000_000
"""Strings of one output; each is an object in memory."""


def greatest(rows: Tensor, count: int, labels: Sequence[str]) -> list[bytes]:
    """Write the greatest numbers of each row.

    As Triton's classification.cc: descending, of equal ones the first; `std::to_string`, so floats have 6 decimals. NaN come last.

    Args:
        rows: (N, K), of any dtype.
        count: of strings a row, >= 1; K where that is less.
        labels: by index; beyond them there is none.

    Returns:
        N · min(count, K) strings in UTF-8, row by row.

    Raises:
        PayloadTooLarge (413): more than MAX_STRINGS.
    """
    count = min(count, rows.shape[1])
    if len(rows) * count > MAX_STRINGS:
        raise PayloadTooLarge(f"classification: expected at most {MAX_STRINGS} strings, these are {len(rows) * count}")
    # Inverting the bits turns the order of integers around, where a minus sign would wrap.
    keys = -rows if rows.dtype.kind == "f" else ~rows
    order = np.argsort(keys, axis=1, kind="stable")[:, :count]  # (N, count); NaN are last in either direction
    pattern = "%f:%d" if rows.dtype.kind == "f" else "%d:%d"
    strings = []
    for row, indices in zip(rows, order, strict=True):
        for value, index in zip(row[indices].tolist(), indices.tolist(), strict=True):
            text = pattern % (value, index)
            strings.append((f"{text}:{labels[index]}" if index < len(labels) else text).encode())
    return strings

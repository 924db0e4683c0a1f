"""Sums of integers, exact up to 64 bits: ONNX Runtime 1.31 adds int64 as doubles, which hold 53; large ones go in parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from service.errors import InvalidTensor

_BITS = 21
_DOUBLE = 2**53


def largest_magnitude(x: np.ndarray) -> int:
    """The largest |x| of integers; 0 where there are none."""
    return max(int(x.max()), -int(x.min())) if x.size else 0


def exact_sum(x: np.ndarray, terms: int, largest: int, add: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Add integers.

    Args:
        x: any integer dtype.
        terms: how many are added together at most, each as often as its weight says.
        largest: magnitude in x.
        add: what adds int64, exactly as long as no sum passes 2⁵³.

    Returns:
        int64; for uint64 the bits of the sum.

    Raises:
        InvalidTensor: 422; a sum may not fit 64 bits. Says the bound.
    """
    if largest * terms < _DOUBLE:
        return add(x.astype(np.int64, copy=False))
    bound = 2**64 if x.dtype == np.uint64 else 2**63
    if largest * terms >= bound:
        raise InvalidTensor(
            f"expected integers whose sum over {terms} cells fits 64 bits, that is of magnitude below {bound // terms}"
        )
    wide = x if x.dtype == np.uint64 else x.astype(np.int64, copy=False)
    mask = wide.dtype.type(2**_BITS - 1)
    low, middle, high = (wide >> wide.dtype.type(shift * _BITS) for shift in range(3))
    parts = [(part & mask).astype(np.int64) for part in (low, middle)] + [high.astype(np.int64)]
    total: np.ndarray = sum(add(part) << np.int64(shift * _BITS) for shift, part in enumerate(parts))  # type: ignore[assignment]
    return total

"""Numbers: which dtype a statistic is computed in and answers with, and what of a tensor is no number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from graphs.operators.operator import Operator

_SLICE = 2**20
"""Elements looked at together: what a look allocates stays in the cache."""

EXACT_TAPS = 4096
"""Regions with more cells are added in float64: float32 sums drift with their length (1e-5 at 2048² cells, 1e-2 with an offset)."""

_SIGN = np.uint64(2**63)


@dataclass(frozen=True)
class Kind:
    """How an operator handles a dtype.

    Attributes:
        dtype: that the graph takes.
        arithmetic: that it computes in.
        output: that it gives; the answer's is `answer`, of the same bits but for uint64.
        answer: of what the caller gets.
        flipped: uint64 is compared as int64, with the middle of its range moved to 0, which keeps the order.
    """

    dtype: str
    arithmetic: str
    output: str
    answer: str
    flipped: bool = False

    @property
    def zero(self) -> int:
        """What stands for 0 in the graph's answer: regions without cells give it."""
        return -(2**63) if self.flipped else 0

    def feed(self, x: np.ndarray) -> np.ndarray:
        """Bring a tensor into the graph's dtype; no copy where it has it."""
        if x.dtype == np.uint64 and self.dtype == "int64":
            return (x ^ _SIGN).view(np.int64) if self.flipped else x.view(np.int64)
        return x.astype(self.dtype, copy=False)

    def finish(self, y: np.ndarray) -> np.ndarray:
        """Bring the graph's answer into the caller's dtype."""
        if self.answer == "uint64":
            return y.view(np.uint64) ^ _SIGN if self.flipped else y.view(np.uint64)
        return y.astype(self.answer, copy=False)


def kind_of(operator: Operator, dtype: np.dtype, cells: int) -> Kind:
    """Choose.

    Args:
        operator: says what it answers integers with.
        dtype: the tensor's.
        cells: of the largest region.
    """
    name = dtype.name
    if dtype.kind == "f":
        wide = name == "float64" or cells > EXACT_TAPS
        if operator.answers == "sum" and name == "float16":
            return Kind(name, "float64" if wide else "float32", "float32", "float32")  # 65504 is soon passed
        if operator.answers == "same":  # comparing is exact in any precision
            wide = name == "float64"
        return Kind(name, "float64" if wide else "float32", name, name)
    small = name in {"int8", "uint8", "int16", "uint16", "int32"}
    if operator.answers == "same":
        whole = "int32" if small else "int64"
        return Kind(whole, whole, whole, name, flipped=name == "uint64")
    if operator.answers == "sum":
        return Kind("int64", "int64", "int64", "uint64" if name == "uint64" else "int64")
    return Kind("float64", "float64", "float32", "float32")


def sum_of_squares(flat: np.ndarray) -> float:
    """Σx² of floats: not finite if one of them is not, or where it overflows, which is no reason to warn."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.dot(flat, flat))


def oddities(x: np.ndarray) -> tuple[bool, bool]:
    """Say whether there is any NaN, and whether all numbers are finite."""
    if x.dtype.kind != "f":
        return False, True
    flat = x.reshape(-1)
    nan = False
    finite = True
    for start in range(0, flat.size, _SLICE):
        part = flat[start : start + _SLICE]
        if part.dtype == np.float16:
            bits = part.view(np.uint16) & np.uint16(0x7FFF)
            largest = int(bits.max())
            finite, nan = finite and largest < 0x7C00, nan or largest > 0x7C00
        elif not math.isfinite(sum_of_squares(part)):  # squares overflow above 1e19, so that is only a suspicion
            finite = finite and bool(np.isfinite(part).all())
            nan = nan or bool(np.isnan(part).any())
    return nan, finite

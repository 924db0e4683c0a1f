"""Integers (and what is computed from them) that a graph derives from the size of its input, as expressions.

A `Shape`, and the Gather, Add, Div after it, give numbers that the analysis follows by name instead of value: so it knows
that a Reshape flattens the positions, or that a sum is divided by the number of cells. Two expressions are taken to be the
same where they give the same number for each of some 3000 sizes, all heights and widths from 1 to 1024 among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

Side = Literal["height", "width"]
Number = int | float


@dataclass(frozen=True)
class Level:
    """A grid of cells along one side of the image: floor((L + offset) / stride) + 1 of them, L pixels the side.

    A convolution or pooling with kernel k, stride s, padding p₀ and p₁, dilation d makes floor((n + a) / s) + 1 cells of
    n, a = p₀ + p₁ − d·(k−1) − 1. Floors of floors are floors, so any chain of them is one level:
    stride S·s, offset A + S·(1 + a). Paths that meet are on one level exactly where both numbers are the same.

    Attributes:
        side: of the image.
        stride: pixels of the image a cell, >= 1.
        offset: as in the formula, pixels; −1 for the pixels themselves.
        window: a part of the cells, [start, end), as numbers that depend on the size (a pyramid's bin); None for all.
    """

    side: Side
    stride: int = 1
    offset: int = -1
    window: tuple[Size | int, Size | int] | None = None

    def step(self, stride: int, reach: int) -> Level:
        """Give the level after a window of that stride, reach = p₀ + p₁ − d·(k−1) − 1."""
        return Level(self.side, self.stride * stride, self.offset + self.stride * (1 + reach))

    def cells(self, length: int) -> int:
        """Cells for an image of `length` pixels; <= 0 where it is too small."""
        return (length + self.offset) // self.stride + 1

    @property
    def minimum(self) -> int:
        """Pixels of the smallest image that has a cell."""
        return max(1, -self.offset)

    def count(self) -> Size | Number:
        """Cells (of the window, where there is one) as an expression."""
        return Size("cells", (), self) if self.window is None else calculate("Sub", self.window[1], self.window[0])


@dataclass(frozen=True)
class Size:
    """An expression over the batch, height and width of the input.

    Attributes:
        op: `batch`, `cells` (of `level`), or an operator of ONNX that `calculate` knows.
        operands: expressions and numbers.
        level: of `cells`.
    """

    op: str
    operands: tuple[Size | Number, ...] = ()
    level: Level | None = None

    @property
    def sized(self) -> bool:
        """Whether the number depends on height or width."""
        return self.op == "cells" or any(isinstance(one, Size) and one.sized for one in self.operands)

    def evaluate(self, sample: Mapping[str, np.ndarray]) -> np.ndarray:
        """Give the numbers for arrays `batch`, `height` and `width` (K,), int64."""
        if self.op == "batch":
            return sample["batch"]
        if self.level is not None:
            return (sample[self.level.side] + self.level.offset) // self.level.stride + 1
        with np.errstate(all="ignore"):
            return np.asarray(OPERATORS[self.op](*[evaluate(one, sample) for one in self.operands]))


BATCH = Size("batch")


def _truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide as ONNX's Div does integers: towards zero."""
    b = np.where(b == 0, 1, b)
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


OPERATORS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "Neg": np.negative,
    "Abs": np.abs,
    "IntegerDiv": _truncated,
    "Mod": lambda a, b: np.mod(a, np.where(b == 0, 1, b)),
    "Float": lambda a: np.asarray(a, np.float64),
    "Integer": lambda a: np.trunc(a).astype(np.int64),
    "Div": np.true_divide,
    "Sqrt": np.sqrt,
    "Reciprocal": np.reciprocal,
    "Pow": np.power,
    "Log": np.log,
    "Exp": np.exp,
    "Floor": np.floor,
    "Ceil": np.ceil,
}
"""What expressions are made of: ONNX's operators, `IntegerDiv` (its Div of integers), `Float` and `Integer` (its Cast)."""


def evaluate(value: Size | Number, sample: Mapping[str, np.ndarray]) -> np.ndarray:
    """Give an expression's or a number's values."""
    if isinstance(value, Size):
        return value.evaluate(sample)
    return np.full(len(sample["height"]), value)


def calculate(op: str, *operands: Size | Number) -> Size | Number:
    """Apply an operator of OPERATORS; numbers give a number."""
    if not any(isinstance(one, Size) for one in operands):
        result = OPERATORS[op](*(np.asarray(one) for one in operands))
        return float(result) if result.dtype.kind == "f" else int(result)
    if op == "Mul" and operands[0] == 1:
        return operands[1]
    if (op == "Mul" and operands[1] == 1) or (op in {"Add", "Sub"} and operands[1] == 0):
        return operands[0]
    return Size(op, operands)


def product(factors: Sequence[Size | Number]) -> Size | Number:
    """Multiply."""
    result: Size | Number = 1
    for factor in factors:
        result = calculate("Mul", result, factor)
    return result


@cache
def sample() -> Mapping[str, np.ndarray]:
    """Sizes that expressions are compared at: all heights and widths to 1024, and 2048 at random to 5000."""
    rng = np.random.default_rng(0)  # the sizes that expressions are compared at; any will do
    counting = np.arange(1, 1025)
    height = np.concatenate([counting, rng.integers(1, 5000, 1024), rng.integers(1, 5000, 1024)])
    width = np.concatenate([rng.integers(1, 5000, 1024), counting, rng.integers(1, 5000, 1024)])
    return {"batch": rng.integers(2, 1000, len(height)), "height": height, "width": width}


def same(a: Size | Number, b: Size | Number) -> bool:
    """Whether two expressions give the same number at every size (of some 3000) at which their levels have cells."""
    if a == b:
        return True
    there = np.ones(len(sample()["height"]), bool)
    for level in levels_of(a) | levels_of(b):
        there &= sample()[level.side] >= level.minimum
    return bool(there.any() and np.array_equal(evaluate(a, sample())[there], evaluate(b, sample())[there]))


def levels_of(value: Size | Number) -> set[Level]:
    """Give the levels whose cells an expression counts."""
    if not isinstance(value, Size):
        return set()
    return {value.level} if value.level is not None else set().union(*map(levels_of, value.operands))


def is_sized(value: Size | Number) -> bool:
    """Whether a number depends on height or width."""
    return isinstance(value, Size) and value.sized

"""Windows of a small tensor, pooled in one go by their own kernel; and with arrays that stay from one request to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from service.runtime.pooling.kinds import sum_of_squares
from service.runtime.session import Session


@dataclass(frozen=True)
class Whole:
    """Tensors of one shape and dtype.

    Attributes:
        session: of the windows; one input, one output.
        taken: shape that it takes: (B,1,*plane).
        answer: shape of what comes out: (*lead,*output).
        dtype: of both.
    """

    session: Session
    taken: tuple[int, ...]
    answer: tuple[int, ...]
    dtype: np.dtype

    def run(self, x: np.ndarray) -> np.ndarray | None:
        """Pool; None if there is something in it that the kernels do not take."""
        if self.dtype.kind == "f" and not math.isfinite(sum_of_squares(x.reshape(-1))):
            return None
        return self.session.run_one(x.reshape(self.taken)).reshape(self.answer)

    def fixed(self) -> Fixed | None:
        """What pools floats without making an array; None for other numbers, and on a device."""
        return Fixed(self) if self.dtype.kind == "f" and self.session.provider == "cpu" else None


class Fixed:
    """For one thread: a run reads and writes the same memory each time. Making arrays costs more than pooling sixteen numbers.

    Attributes:
        numbers: what is pooled, flat; to be filled before each run, with finite numbers.
        tensor: what comes out; the next run overwrites it.
        run: pools.
    """

    __slots__ = ("numbers", "run", "tensor")

    def __init__(self, whole: Whole) -> None:
        x = np.zeros(whole.taken, whole.dtype)
        y = whole.session.run_one(x)  # says the shape
        self.numbers = x.reshape(-1)
        self.tensor = y.reshape(whole.answer)
        self.run = whole.session.bind(x, y)

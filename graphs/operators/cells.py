"""What a statistic sees: the cells of each region, gathered, with their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphs.operators.expression import Tensor, placeholder, where
from graphs.operators.functions import softmax

LOWEST = float("-inf")


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of r regions, at most n each: (B,r,n), or (N,r,C,n) for joint operators. They run along the last axis.

    Attributes:
        values: finite-weight cells; what stands where a cell is absent does not count.
        weight: (1,r,n), (1,r,1,n), or with a leading B; 0 where a cell is absent. None: all are present with weight 1.
        divisor: (1,r,1) or (1,r,1,1), what an average divides by. None: the sum of the weights.
    """

    values: Tensor
    weight: Tensor | None = None
    divisor: Tensor | None = None

    @property
    def present(self) -> Tensor | None:
        """Where there is a cell; None: everywhere."""
        return None if self.weight is None else self.weight.greater(0.0)

    def parameter(self, name: str, *shape: int | str) -> Tensor:
        """Declare an operator's parameter as an input, so that one graph serves every value of it; shape () for a number."""
        return placeholder(self.values.graph, name, shape)

    def sum(self, x: Tensor) -> Tensor:
        """Σ w·x over each region, the last axis kept."""
        return self.weigh(x).sum()

    def weigh(self, x: Tensor) -> Tensor:
        """w·x, exactly 0 where a cell is absent whatever stands there."""
        if self.weight is None:
            return x
        assert self.present is not None
        return where(self.present, x * self.weight, 0.0)

    def softmax(self, x: Tensor) -> Tensor:
        """w·e^x / Σ w·e^x over each region; all 0 for a region without cells."""
        if self.present is None:
            return softmax(x)
        top = self.max(x).detach()
        top = where(top.equal(LOWEST), 0.0, top)
        powers = (where(self.present, x, top) - top).exp()
        total = self.sum(powers)
        return self.weigh(powers) / where(total.equal(0.0), 1.0, total)

    def size(self) -> Tensor:
        """Σ w of each region, n where all are present; 1 for a region without cells, so that nothing divides by 0."""
        if self.weight is None:
            return self.values.length().cast(self.values.graph.dtype)
        total = self.weight.sum()
        return where(total.equal(0.0), 1.0, total)

    def count(self) -> Tensor:
        """How many cells each region has: as `size`, but every present cell counts 1."""
        if self.present is None:
            return self.size()
        return self.present.cast(self.values.graph.dtype).sum()

    def mean(self, x: Tensor) -> Tensor:
        """Σ w·x / Σ w."""
        return self.sum(x) / self.size()

    def max(self, x: Tensor) -> Tensor:
        """The maximum over the cells that are present; −∞ where there is none."""
        return self.fill(x, LOWEST).max()

    def min(self, x: Tensor) -> Tensor:
        """The minimum over the cells that are present; ∞ where there is none."""
        return self.fill(x, -LOWEST).min()

    def fill(self, x: Tensor, value: float) -> Tensor:
        """X where a cell is present, the value elsewhere."""
        if self.present is None:
            return x
        dtype = x.graph.dtype
        if dtype.kind in "iu" and np.isinf(value):  # integers have no infinity: their own bounds serve
            bounds = np.iinfo(dtype)
            value = bounds.max if value > 0 else bounds.min
        return where(self.present, x, value)

    def positions(self) -> Tensor:
        """0, 1, 2 … along the cells, as numbers of the graph's dtype."""
        return self.values.positions().cast(self.values.graph.dtype)

    def total(self) -> Tensor:
        """The length of the cell axis, absent cells included: a scalar, int64."""
        return self.values.length().cast(np.int64)

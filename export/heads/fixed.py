"""The heads without learned parameters: thin modules over functional.py and pyramid.py, which have the formulas and sources."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.heads import functional
from export.heads.head import Head, require_at_least_one, require_one_of
from export.heads.pyramid import pyramid


class GlobalAverage(Head):
    """Global average pooling: `functional.average`."""

    pooling = "gap"
    formula = "mean(x)"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.average(x)


class GlobalMax(Head):
    """Global max pooling: `functional.maximum`."""

    pooling = "gmp"
    formula = "max(x)"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.maximum(x)


class AverageMax(Head):
    """Half the average and half the maximum (timm's `avgmax`)."""

    pooling = "avgmax"
    formula = "½·mean(x) + ½·max(x)"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.mix(x, 0.5)


class CatAverageMax(Head):
    """Average and maximum side by side, average first (timm's `catavgmax`)."""

    pooling = "catavgmax"
    formula = "[mean(x), max(x)]"

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,2C)."""
        return torch.cat([functional.average(x), functional.maximum(x)], 1)


class Sum(Head):
    """Sum pooling: `functional.total`."""

    pooling = "sum"
    formula = "Σ x"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.total(x)


class Lp(Head):
    """Lp-norm pooling: `functional.lp`.

    Args:
        channels: C.
        p: exponent >= 1 (below 1 it is no norm, and its gradient at 0 is infinite).
        mean: divide by the number of positions, so that the size of the map does not matter.
    """

    pooling = "lp"
    formula = "(Σ |x|^p)^(1/p), or (mean |x|^p)^(1/p)"

    def __init__(self, channels: int, *, p: float = 2.0, mean: bool = False) -> None:
        p = require_at_least_one("p", p)
        super().__init__(channels, p=p, mean=bool(mean))
        self.p = p
        self.mean = bool(mean)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.lp(x, self.p, mean=self.mean)


class L2(Head):
    """L2-norm pooling: `functional.lp` with p = 2.

    Args:
        channels: C.
        mean: the root of the mean square instead of the root of the sum of squares.
    """

    pooling = "l2"
    formula = "√(Σ x²), or √(mean x²)"

    def __init__(self, channels: int, *, mean: bool = False) -> None:
        super().__init__(channels, mean=bool(mean))
        self.mean = bool(mean)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.lp(x, 2.0, mean=self.mean)


class Stochastic(Head):
    """Stochastic pooling: draws in training (`functional.stochastic_draw`), weighs by probability otherwise."""

    pooling = "stochastic"
    formula = "training: draw x with P = x/Σx; inference: Σx²/Σx"

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.stochastic_draw(x) if self.training else functional.stochastic(x)


class SpatialPyramid(Head):
    """Spatial pyramid pooling at any size: `pyramid.pyramid`.

    Args:
        channels: C.
        levels: bins a side of each grid, each >= 1.
        kind: `max` (as in the paper) or `avg`.
    """

    pooling = "spp"
    formula = "grids n×n of max(x) or mean(x), concatenated over n in levels"

    def __init__(self, channels: int, *, levels: Sequence[int] = (1, 2, 4), kind: str = "max") -> None:
        levels = tuple(int(n) for n in levels)
        if not levels or min(levels) < 1:
            raise ValueError(f"levels must be one or more integers >= 1, got {list(levels)}")
        require_one_of("kind", kind, ("avg", "max"))
        super().__init__(channels, channels * sum(n * n for n in levels), levels=list(levels), kind=kind)
        self.levels = levels
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N, C·Σn²)."""
        return pyramid(x, self.levels, kind=self.kind)


class Quadrants(Head):
    """The four quadrants, each pooled by itself; a middle row or column belongs to both its sides.

    Args:
        channels: C.
        kind: `avg` or `max`.
    """

    pooling = "quadrants"
    formula = "mean(x) or max(x) over each quarter of the map"

    def __init__(self, channels: int, *, kind: str = "avg") -> None:
        require_one_of("kind", kind, ("avg", "max"))
        super().__init__(channels, 4 * channels, kind=kind)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,4C)."""
        return pyramid(x, (2,), kind=self.kind)

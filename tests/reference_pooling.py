"""The oracle of the pooling operators: one region at a time, straight from the papers' formulas; slow and short on purpose.

Each takes the region's cells x (n,) and their weights w (n,), in float64 or longer, and gives K numbers. Nothing of the packages may be
imported here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Formula = Callable[..., Array]


def mean(x: Array, w: Array) -> Array:
    return (w * x).sum() / w.sum()


def lp(x: Array, w: Array, p: float = 2.0, form: str = "sum") -> Array:
    """Sermanet, Chintala, LeCun 2012; with the mean Gulcehre et al. 2013, equation 2."""
    if np.isinf(p):
        return np.abs(x).max()
    powers = np.abs(x) ** p
    return ((w * powers).sum() if form == "sum" else mean(powers, w)) ** (1 / p)


def gem(x: Array, w: Array, p: float = 3.0, eps: float = 1e-6) -> Array:
    """Radenović, Tolias, Chum 2017, equation 3."""
    return mean(np.maximum(x, eps) ** p, w) ** (1 / p)


def power(x: Array, w: Array, n: float = 1.0) -> Array:
    """Liu et al. 2020, equation 5 (n = 1: Wang, Li, Metze 2018, linear softmax)."""
    x = np.maximum(x, 0)
    total = (w * x**n).sum()
    return (w * x ** (n + 1)).sum() / total if total else x.sum()


def stochastic(x: Array, w: Array) -> Array:
    """Zeiler, Fergus 2013, equations 4 and 6."""
    x = np.maximum(x, 0)
    if not x.any():
        return x.sum()
    p = w * x / (w * x).sum()
    return (p * x).sum()


def lse(x: Array, w: Array, r: float = 1.0, form: str = "mean") -> Array:
    """Pinheiro, Collobert 2015, equation 6. Overflows where r·x > 709 in float64."""
    powers = np.exp(r * x)
    return np.log((w * powers).sum() if form == "sum" else mean(powers, w)) / r


def softmax(x: Array, w: Array, alpha: float = 1.0) -> Array:
    """McFee, Salamon, Bello 2018, equation 5. Overflows where α·x > 709 in float64."""
    weight = w * np.exp(alpha * x)
    return (weight * x).sum() / weight.sum()


def softpool(x: Array, w: Array, tau: float = 1.0) -> Array:
    """Stergiou, Poppe, Kalliatakis 2021, equations 1 and 2, with a temperature."""
    return softmax(x, w, 1 / tau)


def boltzmann(x: Array, w: Array, beta: float = 1.0) -> Array:
    """Asadi, Littman 2017, section 2."""
    return softmax(x, w, beta)


def var(x: Array, w: Array) -> Array:
    return mean((x - mean(x, w)) ** 2, w)


def std(x: Array, w: Array) -> Array:
    return np.sqrt(var(x, w))


def mean_std(x: Array, w: Array) -> Array:
    """Snyder et al. 2018: statistics pooling."""
    return np.array([mean(x, w), std(x, w)])


def _standardised(x: Array, w: Array, k: int) -> Array:
    return mean(((x - mean(x, w)) / std(x, w)) ** k, w)


def skew(x: Array, w: Array) -> Array:
    return _standardised(x, w, 3) if np.ptp(x) else x.dtype.type(0)


def kurtosis(x: Array, w: Array, excess: bool = False) -> Array:
    return _standardised(x, w, 4) - (3 if excess else 0) if np.ptp(x) else x.dtype.type(0)

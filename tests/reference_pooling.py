"""The oracle of the pooling operators: one region at a time, straight from the papers' formulas; slow and short on purpose.

Each takes the region's cells x (n,) and their weights w (n,), in float64 or longer, and gives K numbers.
Nothing of the packages may be imported here.
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


def _count(k: float, n: int) -> int:
    """How many cells a number, or a share below 1, means."""
    return min(max(int(np.ceil(round(k * n, 6))), 1) if k < 1 else int(k), n)


def topk(x: Array, w: Array, k: float = 0.25) -> Array:
    """Durand, Thome, Cord 2016: the mean of the k largest."""
    return np.sort(x)[::-1][: _count(k, x.size)].mean()


def median(x: Array, w: Array, convention: str = "lower") -> Array:
    ordered = np.sort(x)
    lower, upper = ordered[(x.size - 1) // 2], ordered[x.size // 2]
    return {"lower": lower, "upper": upper, "mean": (lower + upper) / 2}[convention]


def quantile(x: Array, w: Array, q: float = 0.5) -> Array:
    """Hyndman, Fan 1996, definition 7."""
    return np.quantile(x, x.dtype.type(q))


def rank(x: Array, w: Array, weighting: str = "average", t: float = 2, a: float = 0.5) -> Array:
    """Shi, Ye, Wu 2016: RAP and RWP."""
    if weighting == "average":
        return topk(x, w, t)
    return sum(a * (1 - a) ** place * value for place, value in enumerate(np.sort(x)[::-1]))


def ordinal(x: Array, w: Array, ranks: Array) -> Array:
    """Deliège et al. 2021, equation 1, the weights normalised over the ranks that there are."""
    pairs = list(zip(np.sort(x)[::-1], ranks, strict=False))
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def kmax(x: Array, w: Array, k: int = 1) -> Array:
    """Kalchbrenner, Grefenstette, Blunsom 2014, section 3.2."""
    chosen = sorted(np.argsort(-x, kind="stable")[:k])
    return np.concatenate([x[chosen], np.zeros(k - len(chosen))])


def mixed(x: Array, w: Array, alpha: float = 0.5) -> Array:
    """Lee, Gallagher, Tu 2016, equation 1."""
    return alpha * x.max() + (1 - alpha) * mean(x, w)


def avgmax(x: Array, w: Array) -> Array:
    return mixed(x, w, 0.5)


def catavgmax(x: Array, w: Array) -> Array:
    return np.array([mean(x, w), x.max()])


def adapool(x: Array, w: Array, beta: float = 0.5) -> Array:
    """Stergiou, Poppe 2021: the exponential Dice-Sørensen coefficient weights, and SoftPool."""
    centre = mean(x, w)
    weight = w * np.exp(2 * x * centre / (x**2 + centre**2))
    return beta * (weight * x).sum() / weight.sum() + (1 - beta) * softpool(x, w)


def gated(x: Array, w: Array, omega: Array, bias: float = 0.0) -> Array:
    """Lee, Gallagher, Tu 2016, equation 2."""
    share = 1 / (1 + np.exp(-((omega * x).sum() + bias)))
    return mixed(x, w, share)

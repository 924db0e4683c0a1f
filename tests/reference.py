"""The oracle of every pooling: NumPy in float64, one image, straight from the papers' formulas; slow and short on purpose.

Each takes features x (C,H,W) float64 and gives the embedding (D,). Nothing of the packages may be imported here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def gap(x: Array) -> Array:
    """Lin, Chen, Yan 2013: the average."""
    return x.mean((1, 2))


def gmp(x: Array) -> Array:
    """Tolias, Sicre, Jégou 2015 (MAC): the maximum."""
    return x.max((1, 2))


def avgmax(x: Array) -> Array:
    """timm: half of each."""
    return (gap(x) + gmp(x)) / 2


def catavgmax(x: Array) -> Array:
    """timm: side by side."""
    return np.concatenate([gap(x), gmp(x)])


def total(x: Array) -> Array:
    return x.sum((1, 2))


def lp(x: Array, p: float, *, mean: bool = False) -> Array:
    """Sermanet, Chintala, LeCun 2012."""
    powers = (np.abs(x) ** p).sum((1, 2))
    return (powers / x[0].size if mean else powers) ** (1 / p)


def gem(x: Array, p: float | Array, eps: float = 1e-6) -> Array:
    """Radenović, Tolias, Chum 2017, equation 3; p is one number or (C,)."""
    p = np.broadcast_to(p, len(x))
    return np.array([(np.maximum(c, eps) ** q).mean() ** (1 / q) for c, q in zip(x, p, strict=True)])


def lse(x: Array, r: float) -> Array:
    """Pinheiro, Collobert 2015, equation 6. Overflows where r·x > 709: keep the inputs smaller."""
    return np.log(np.exp(r * x).mean((1, 2))) / r


def softmax_weighted(x: Array, alpha: float) -> Array:
    """McFee, Salamon, Bello 2018, equation 5. Overflows where α·x > 709."""
    weight = np.exp(alpha * x)
    return (x * weight).sum((1, 2)) / weight.sum((1, 2))


def mixed(x: Array, alpha: float | Array) -> Array:
    """Lee, Gallagher, Tu 2016, equation 1."""
    return alpha * gmp(x) + (1 - alpha) * gap(x)


def gated(x: Array, weight: Array, bias: Array) -> Array:
    """Lee, Gallagher, Tu 2016, equation 2, with a mask ω that is weight / (H·W) at every position."""
    omega = weight[:, None, None] * np.ones_like(x) / x[0].size
    return mixed(x, 1 / (1 + np.exp(-((omega * x).sum((1, 2)) + bias))))


def stochastic(x: Array) -> Array:
    """Zeiler, Fergus 2013, equations 4 and 6; a map without a positive value gives 0."""
    x = np.maximum(x, 0).reshape(len(x), -1)
    return np.array([0.0 if c.sum() == 0 else (c / c.sum() * c).sum() for c in x])


def attention(x: Array, w: Array, v: tuple[Array, Array], u: tuple[Array, Array] | None = None) -> Array:
    """Ilse, Tomczak, Welling 2018, equations 7 to 9: an instance is one position's (C,); v and u are weight and bias."""
    h = x.reshape(len(x), -1)
    gate = 1 if u is None else 1 / (1 + np.exp(-(u[0] @ h + u[1][:, None])))
    score = np.exp(w @ (np.tanh(v[0] @ h + v[1][:, None]) * gate))
    return h @ (score / score.sum())


def grid(x: Array, n: int, kind: str) -> Array:
    """n×n bins of ⌊iL/n⌋ … ⌈(i+1)L/n⌉, each reduced by itself: (C·n²,)."""
    rows, columns = ([range(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for side in x.shape[1:])
    bins = [[x[:, r][:, :, c] for c in columns] for r in rows]
    return np.array([[gap(b) if kind == "avg" else gmp(b) for b in row] for row in bins]).transpose(2, 0, 1).ravel()


def pyramid(x: Array, levels: tuple[int, ...], kind: str) -> Array:
    """He, Zhang, Ren, Sun 2014: grids one after another."""
    return np.concatenate([grid(x, n, kind) for n in levels])

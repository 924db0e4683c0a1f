"""The pooling operators as pure functions of features (N,C,H,W), at any H, W >= 1.

No parameters live here (fixed.py and learned.py hold them) and no shape is read as a Python constant: every function
exports exactly through torch.onnx.export with dynamic batch, height and width. A global operator ends in Reduce* over
the spatial axes (a maximum over both at once, a sum or mean over axis 3 and then 2), which later graph transformations
rely on. What would overflow (powers, exponentials) is scaled or shifted by the map's own maximum; that maximum is
detached, because the results do not depend on it and their gradients neither.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPATIAL = (2, 3)


def average(x: Tensor) -> Tensor:
    """Global average pooling.

        y_c = 1/N Σ x_c                                 # N = H·W

    Args:
        x: features (N,C,H,W), floating point.

    Returns:
        embedding (N,C), same dtype.

    Source: Lin, Chen, Yan, arXiv:1312.4400.
    """
    return _mean(x)


def maximum(x: Tensor) -> Tensor:
    """Global max pooling (MAC).

        y_c = max x_c

    Args:
        x: features (N,C,H,W).

    Returns:
        embedding (N,C), same dtype.

    Source: Tolias, Sicre, Jégou, arXiv:1511.05879.
    """
    return x.amax(SPATIAL)


def total(x: Tensor) -> Tensor:
    """Sum pooling; it grows with the map's area, for tasks that count.

        y_c = Σ x_c

    Args:
        x: features (N,C,H,W), floating point.

    Returns:
        embedding (N,C), same dtype.
    """
    return _sum(x)


def mix(x: Tensor, weight: Tensor | float) -> Tensor:
    """Weighted sum of the maximum and the average.

        y_c = a·max x_c + (1 − a)·mean x_c              # a = ½ is timm's avgmax

    Args:
        x: features (N,C,H,W), floating point.
        weight: a in [0, 1], a number or anything that broadcasts to (N,C).

    Returns:
        embedding (N,C), same dtype.

    Source: Lee, Gallagher, Tu, arXiv:1509.08985, "mixed" (a learned) and "gated" (a computed from the region).
    """
    return weight * maximum(x) + (1 - weight) * average(x)


def gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """How much of the maximum gated pooling takes, from the features themselves.

        a_c = σ(w_c · mean x_c + b_c)

    Lee et al. gate with σ(ωᵀx) over a window of fixed size. A window that is the whole map has no fixed size, so ω is
    one number for all positions (w_c / N each), which is the mean above; the bias lets the gate rest away from ½.

    Args:
        x: features (N,C,H,W), floating point.
        weight: w, (C,) or (1,).
        bias: b, (C,) or (1,).

    Returns:
        gates (N,C) in (0, 1).

    Source: Lee, Gallagher, Tu, arXiv:1509.08985, section 3.1.
    """
    return torch.sigmoid(weight * average(x) + bias)


def lp(x: Tensor, p: float, *, mean: bool = False) -> Tensor:
    """Lp norm of the map; p = 2 is L2 pooling.

        y_c = (Σ |x_c|^p)^(1/p)                         # mean=True: (1/N Σ |x_c|^p)^(1/p)

    Args:
        x: features (N,C,H,W), floating point; the sign is ignored (torch's lp_pool does not, and gives NaN for odd p).
        p: exponent >= 1.
        mean: divide the sum by the number of positions, so that the result does not grow with the area.

    Returns:
        embedding (N,C) >= 0, same dtype. An all-zero map gives 0, with gradient 0.

    Source: Sermanet, Chintala, LeCun, arXiv:1204.3968.
    """
    magnitude = x.abs()
    top = magnitude.amax(SPATIAL, keepdim=True).detach()  # (N,C,1,1)
    power = (magnitude / _nonzero(top)).pow(p)  # in [0, 1]: no overflow
    tiny = torch.finfo(
        x.dtype
    ).tiny  # never reached by a map that is not zero; keeps the root's gradient finite for one that is
    pooled = _mean(power) if mean else _sum(power)
    return top[:, :, 0, 0] * pooled.clamp(min=tiny).pow(1 / p)


def gem(x: Tensor, p: Tensor | float, *, eps: float = 1e-6) -> Tensor:
    """Generalised mean.

        y_c = (1/N Σ max(x_c, eps)^p)^(1/p)             # p = 1 average of the clamped map, p → ∞ maximum

    Args:
        x: features (N,C,H,W), floating point.
        p: exponent > 0, a number, (1,) or (C,).
        eps: floor > 0 under the features, so that the power's gradient is finite.

    Returns:
        embedding (N,C) >= eps, same dtype.

    Source: Radenović, Tolias, Chum, arXiv:1711.02512.
    """
    x = x.clamp(min=eps)
    top = x.amax(SPATIAL, keepdim=True).detach()  # (N,C,1,1)
    exponent = p[:, None, None] if isinstance(p, Tensor) else p  # (C,1,1), broadcasts against (N,C,H,W)
    root = _mean((x / top).pow(exponent)).pow(1 / p)  # (N,C)
    return top[:, :, 0, 0] * root


def log_sum_exp(x: Tensor, r: Tensor | float) -> Tensor:
    """Log-sum-exp, mean form: a smooth maximum.

        y_c = 1/r · ln(1/N Σ exp(r·x_c))                # r → 0 average, r → ∞ maximum

    Args:
        x: features (N,C,H,W), floating point.
        r: sharpness > 0, a number, (1,) or (C,).

    Returns:
        embedding (N,C), same dtype, between mean and maximum.

    Source: Pinheiro, Collobert, arXiv:1411.6228.
    """
    top = x.amax(SPATIAL, keepdim=True).detach()  # (N,C,1,1)
    sharpness = r[:, None, None] if isinstance(r, Tensor) else r
    return top[:, :, 0, 0] + _mean(torch.exp(sharpness * (x - top))).log() / r


def softmax_weighted(x: Tensor, alpha: Tensor | float) -> Tensor:
    """Average weighted by the softmax of the features over positions (autopool).

        y_c = Σ x_c·exp(α·x_c) / Σ exp(α·x_c)           # α = 0 average, α → ∞ maximum, α → −∞ minimum

    Args:
        x: features (N,C,H,W), floating point.
        alpha: a number, (1,) or (C,).

    Returns:
        embedding (N,C), same dtype.

    Source: McFee, Salamon, Bello, arXiv:1804.10070.
    """
    score = (alpha[:, None, None] if isinstance(alpha, Tensor) else alpha) * x
    weight = torch.exp(score - score.amax(SPATIAL, keepdim=True).detach())  # (N,C,H,W) in (0, 1], 1 somewhere
    return _sum(weight * x) / _sum(weight)


def stochastic(x: Tensor) -> Tensor:
    """Stochastic pooling's inference rule: every value weighted by the probability of drawing it.

        y_c = Σ p·x_c = Σ x_c² / Σ x_c                  # p = x_c / Σ x_c

    Args:
        x: features (N,C,H,W), floating point; negative values count as 0, as after a ReLU.

    Returns:
        embedding (N,C) >= 0, same dtype. An all-zero map gives 0.

    Source: Zeiler, Fergus, arXiv:1301.3557, equations 4 and 6.
    """
    x = x.relu()
    top = x.amax(SPATIAL, keepdim=True).detach()  # (N,C,1,1)
    ratio = x / _nonzero(top)  # (N,C,H,W) in [0, 1], 1 somewhere unless the map is zero: its sum is 0 or >= 1
    return top[:, :, 0, 0] * _sum(ratio.square()) / _sum(ratio).clamp(min=1)


def stochastic_draw(x: Tensor) -> Tensor:
    """Stochastic pooling's training rule: one value per map, drawn with probability in proportion to itself.

        y_c = x_c at position i,  P(i) = x_ci / Σ x_c

    Draws from torch's global generator of x's device.

    Args:
        x: features (N,C,H,W), floating point; negative values count as 0, as after a ReLU.

    Returns:
        embedding (N,C) >= 0, same dtype. An all-zero map gives 0. The gradient goes to the drawn position only.

    Source: Zeiler, Fergus, arXiv:1301.3557, equations 4 and 5.
    """
    flat = x.relu().flatten(2)  # (N,C,HW)
    chance = flat.detach() / _nonzero(flat.detach().amax(2, keepdim=True))
    chance = chance + (chance.amax(2, keepdim=True) == 0).to(x.dtype)  # a zero map: any position will do, all hold 0
    drawn = torch.multinomial(chance.flatten(0, 1), 1).view(x.shape[0], x.shape[1], 1)  # (N,C,1)
    return flat.gather(2, drawn)[:, :, 0]


def attend(x: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Average weighted by the softmax over positions of one score map for all channels.

        a = softmax_{h,w}(score),  y_c = Σ a·x_c

    Args:
        x: features (N,C,H,W), floating point.
        score: (N,1,H,W).

    Returns:
        embedding (N,C), and the attention map a (N,1,H,W), which sums to 1 per image.

    Source: Ilse, Tomczak, Welling, arXiv:1802.04712, equation 8.
    """
    weight = torch.exp(score - score.amax(SPATIAL, keepdim=True).detach())  # (N,1,H,W)
    attention = weight / _sum(weight)[:, :, None, None]
    return _sum(attention * x), attention


def _sum(x: Tensor) -> Tensor:
    """Sum over positions, (N,C,H,W) to (N,C): each row first, then the rows.

    ONNX Runtime's CPU provider adds float32 one after another. Over both axes at once the mean of a constant map of
    512×512 is off by 3e-4 of itself, in two steps by 1e-6 (version 1.31); constant maps are what an empty ground makes.
    """
    return x.sum(3).sum(2)


def _mean(x: Tensor) -> Tensor:
    """Average over positions, (N,C,H,W) to (N,C), in two steps as `_sum`; exact, for all rows are equally long."""
    return x.mean(3).mean(2)


def _nonzero(top: Tensor) -> Tensor:
    """Give `top` with 1 in place of 0, to divide by."""
    return top + (top == 0).to(top.dtype)

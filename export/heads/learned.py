"""The heads that learn how to pool: modules that hold the parameters of functional.py, which has formulas and sources.

`per_channel=True` gives each channel its own parameter; otherwise all channels share one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from export.heads import functional
from export.heads.head import Head, require_positive


class GeneralisedMean(Head):
    """GeM: `functional.gem` with p learned.

    Args:
        channels: C.
        p: initial exponent > 0; 3 as in the paper.
        per_channel: one p a channel.
        learned: False keeps p as it is.
        eps: floor under the features, > 0.
    """

    pooling = "gem"
    formula = "(mean max(x, eps)^p)^(1/p)"

    def __init__(
        self, channels: int, *, p: float = 3.0, per_channel: bool = False, learned: bool = True, eps: float = 1e-6
    ) -> None:
        p, eps = require_positive("p", p), require_positive("eps", eps)
        super().__init__(channels, p=p, per_channel=bool(per_channel), learned=bool(learned), eps=eps)
        self.p = nn.Parameter(torch.full((channels if per_channel else 1,), p), requires_grad=bool(learned))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.gem(x, self.p, eps=self.eps)


class LogSumExp(Head):
    """LSE: `functional.log_sum_exp` with r learned as its logarithm, which keeps it > 0.

    Args:
        channels: C.
        r: initial sharpness > 0; 10 as in timm.
        per_channel: one r a channel.
        learned: False keeps r as it is.
    """

    pooling = "lse"
    formula = "ln(mean exp(r·x)) / r"

    def __init__(self, channels: int, *, r: float = 10.0, per_channel: bool = False, learned: bool = True) -> None:
        r = require_positive("r", r)
        super().__init__(channels, r=r, per_channel=bool(per_channel), learned=bool(learned))
        start = torch.full((channels if per_channel else 1,), math.log(r))
        self.log_r = nn.Parameter(start, requires_grad=bool(learned))

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.log_sum_exp(x, self.log_r.exp())


class SoftmaxWeighted(Head):
    """Autopool: `functional.softmax_weighted` with α learned.

    Args:
        channels: C.
        alpha: initial α; 1 as in the paper, 0 is the average.
        per_channel: one α a channel.
        learned: False keeps α as it is.
    """

    pooling = "softmax"
    formula = "Σ x·exp(α·x) / Σ exp(α·x)"

    def __init__(self, channels: int, *, alpha: float = 1.0, per_channel: bool = False, learned: bool = True) -> None:
        if not math.isfinite(alpha):
            raise ValueError(f"alpha must be a finite number, got {alpha!r}")
        super().__init__(channels, alpha=float(alpha), per_channel=bool(per_channel), learned=bool(learned))
        start = torch.full((channels if per_channel else 1,), float(alpha))
        self.alpha = nn.Parameter(start, requires_grad=bool(learned))

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.softmax_weighted(x, self.alpha)


class Mixed(Head):
    """Mixed max-average pooling: `functional.mix` with α learned as its logit, which keeps it in (0, 1).

    Args:
        channels: C.
        alpha: initial share of the maximum, in (0, 1).
        per_channel: one α a channel.
    """

    pooling = "mixed"
    formula = "α·max(x) + (1 − α)·mean(x)"

    def __init__(self, channels: int, *, alpha: float = 0.5, per_channel: bool = False) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be > 0 and < 1, got {alpha!r}")
        super().__init__(channels, alpha=float(alpha), per_channel=bool(per_channel))
        start = math.log(alpha / (1 - alpha))
        self.logit_alpha = nn.Parameter(torch.full((channels if per_channel else 1,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.mix(x, torch.sigmoid(self.logit_alpha))


class Gated(Head):
    """Gated max-average pooling: `functional.mix` by `functional.gate`, the features deciding the share of the maximum.

    Starts as half and half: weight and bias 0.

    Args:
        channels: C.
        per_channel: one weight and bias a channel.
    """

    pooling = "gated"
    formula = "a·max(x) + (1 − a)·mean(x), a = σ(w·mean(x) + b)"

    def __init__(self, channels: int, *, per_channel: bool = True) -> None:
        super().__init__(channels, per_channel=bool(per_channel))
        self.weight = nn.Parameter(torch.zeros(channels if per_channel else 1))
        self.bias = nn.Parameter(torch.zeros(channels if per_channel else 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.mix(x, functional.gate(x, self.weight, self.bias))


class Attention(Head):
    """Attention pooling over positions (gated MIL): the network learns where to look.

        score = wᵀ(tanh(V x + b_V) ⊙ σ(U x + b_U)),  a = softmax_{h,w}(score),  y_c = Σ a·x_c

    As in the authors' code V and U have biases; w needs none, for the softmax takes a constant away.

    Args:
        channels: C.
        hidden: width of V and U, >= 1; 128 as in the paper.
        gated: False leaves the σ branch out.

    Source: Ilse, Tomczak, Welling, arXiv:1802.04712, equations 8 and 9.
    """

    pooling = "attention"
    formula = "Σ a·x, a = softmax(wᵀ(tanh(Vx) ⊙ σ(Ux)))"

    def __init__(self, channels: int, *, hidden: int = 128, gated: bool = True) -> None:
        if hidden < 1:
            raise ValueError(f"hidden must be >= 1, got {hidden!r}")
        super().__init__(channels, hidden=int(hidden), gated=bool(gated))
        self.V = nn.Conv2d(channels, hidden, 1)
        self.U = nn.Conv2d(channels, hidden, 1) if gated else None
        self.w = nn.Conv2d(hidden, 1, 1, bias=False)

    def score(self, x: Tensor) -> Tensor:
        """Score each position: (N,C,H,W) to (N,1,H,W), any real number."""
        h = torch.tanh(self.V(x))  # (N,hidden,H,W)
        if self.U is not None:
            h = h * torch.sigmoid(self.U(x))
        scores: Tensor = self.w(h)
        return scores

    def attention_map(self, x: Tensor) -> Tensor:
        """Weigh each position: features (N,C,H,W) to (N,1,H,W), >= 0, summing to 1 per image."""
        return functional.attend(x, self.score(x))[1]

    def forward(self, x: Tensor) -> Tensor:
        """Pool (N,C,H,W) to (N,C)."""
        return functional.attend(x, self.score(x))[0]

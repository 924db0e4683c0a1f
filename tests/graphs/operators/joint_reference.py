"""Poolings that see all channels, from their papers, one region at a time: x (C,n), w (n,) its weights, in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize


def unit(x: Tensor) -> Tensor:
    return normalize(x.flatten(), dim=0)


def power(x: Tensor) -> Tensor:
    return torch.sign(x) * torch.sqrt(torch.abs(x))


def bilinear(x: Tensor, w: Tensor, *, whole: bool = True) -> Tensor:
    b = sum(w[i] * torch.outer(x[:, i], x[:, i]) for i in range(len(w))) / w.sum()
    return unit(power(b)) if whole else b.flatten()


def bilinear_plain(x: Tensor, w: Tensor) -> Tensor:
    return bilinear(x, w, whole=False)


def compact_bilinear(x: Tensor, w: Tensor, first: Tensor, second: Tensor) -> Tensor:
    features = torch.stack([(first @ cell) * (second @ cell) / len(first) ** 0.5 for cell in x.T])
    return unit(power((w[:, None] * features).sum(0) / w.sum()))


def covariance(x: Tensor, w: Tensor, iterations: int = 5) -> Tensor:
    centred = x - (x * w).sum(1, keepdim=True) / w.sum()
    sigma = (centred * w) @ centred.T / w.sum()
    eye, trace = torch.eye(len(x), dtype=x.dtype), torch.trace(sigma)
    y, z = sigma / trace, eye
    for _ in range(iterations):
        y, z = y @ (3 * eye - z @ y) / 2, (3 * eye - z @ y) @ z / 2
    row, column = torch.triu_indices(len(x), len(x))
    return (y * trace.sqrt())[row, column]


def generalized_max(x: Tensor, w: Tensor, regularization: float = 1.0) -> Tensor:
    return torch.linalg.solve((x * w) @ x.T + regularization * torch.eye(len(x), dtype=x.dtype), (x * w).sum(1))


def attended(x: Tensor, w: Tensor, scores: Tensor) -> Tensor:
    a = w * torch.exp(scores - scores.max())
    return x @ (a / a.sum())


def attention(x: Tensor, w: Tensor, query: Tensor) -> Tensor:
    return torch.cat([attended(x, w, q @ x / len(x) ** 0.5) for q in query])


def mil(x: Tensor, w: Tensor, hidden: Tensor, score: Tensor) -> Tensor:
    return torch.cat([attended(x, w, s @ torch.tanh(hidden @ x)) for s in score])


def gated_mil(x: Tensor, w: Tensor, hidden: Tensor, gate: Tensor, score: Tensor) -> Tensor:
    gated = torch.tanh(hidden @ x) * torch.sigmoid(gate @ x)
    return torch.cat([attended(x, w, s @ gated) for s in score])


def simpool(x: Tensor, w: Tensor, gamma: float = 2.0) -> Tensor:
    query = (x * w).sum(1) / w.sum()
    return attended((x - x.min()) ** gamma, w, query @ x / len(x) ** 0.5) ** (1 / gamma)


def attentive_statistics(x: Tensor, w: Tensor, hidden: Tensor, offset: Tensor, score: Tensor) -> Tensor:
    scores = score[0] @ torch.tanh(hidden @ x + offset[:, None])
    mean = attended(x, w, scores)
    return torch.cat([mean, attended((x - mean[:, None]) ** 2, w, scores).sqrt()])


def vlad(x: Tensor, w: Tensor, centres: Tensor, alpha: float = 1.0) -> Tensor:
    distances = ((x[None] - centres[:, :, None]) ** 2).sum(1)
    a = torch.softmax(-alpha * distances, 0) * w
    return unit(torch.stack([normalize((a[k] * (x - c[:, None])).sum(1), dim=0) for k, c in enumerate(centres)]))


def fisher(x: Tensor, w: Tensor, means: Tensor, sigmas: Tensor, priors: Tensor) -> Tensor:
    u = (x[None] - means[:, :, None]) / sigmas[:, :, None]  # (K,C,n)
    normal = torch.distributions.Normal(means[:, :, None], sigmas[:, :, None])
    gamma = torch.softmax(priors.log()[:, None] + normal.log_prob(x[None]).sum(1), 0) * w / w.sum()
    by_means = (gamma[:, None] * u).sum(2) / priors[:, None] ** 0.5
    by_sigmas = (gamma[:, None] * (u**2 - 1)).sum(2) / (2 * priors[:, None]) ** 0.5
    return unit(power(torch.cat([by_means.flatten(), by_sigmas.flatten()])))


def capsule(x: Tensor, w: Tensor, transforms: Tensor, iterations: int = 3) -> Tensor:
    predicted = torch.einsum("jdc,ci->jdi", transforms, x)
    b = torch.zeros(len(transforms), x.shape[1], dtype=x.dtype)
    v = predicted[..., 0]
    for _ in range(iterations):
        s = (torch.softmax(b, 0)[:, None] * w * predicted).sum(2)
        length = s.norm(dim=1, keepdim=True)
        v = length**2 / (1 + length**2) * s / length
        b = b + torch.einsum("jd,jdi->ji", v, predicted)
    return v.flatten()


def crow(x: Tensor, w: Tensor, a: float = 2.0, b: float = 2.0) -> Tensor:
    strength = x.sum(0)
    spatial = (strength / (w * strength**a).sum() ** (1 / a)) ** (1 / b)
    q = ((x != 0) * w).sum(1) / w.sum()
    rarity = torch.where(q > 0, torch.log(q.sum() / q.clamp(min=1e-300)), 0.0)
    return rarity * (w * spatial * x).sum(1)


def pooled(name: str, x: Tensor, index: Any, weight: Any, parameters: dict[str, Any]) -> Tensor:
    """All samples and regions: x (N,C,L) → (N,r,D); zeros for a region without cells."""
    kinds = {key: torch.as_tensor(value) if hasattr(value, "shape") else value for key, value in parameters.items()}
    rows = []
    for sample in x:
        regions: list[Tensor | None] = []
        for cells, weights in zip(index, weight, strict=True):
            present = torch.as_tensor(weights) > 0
            region = sample[:, torch.as_tensor(cells)[present]]
            regions.append(
                globals()[name](region, torch.as_tensor(weights)[present], **kinds) if present.any() else None
            )
        width = next(len(region) for region in regions if region is not None)
        rows.append(torch.stack([x.new_zeros(width) if region is None else region for region in regions]))
    return torch.stack(rows)

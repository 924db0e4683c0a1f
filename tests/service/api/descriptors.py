"""Descriptors: asked of /v1/embed, and as torch makes them of the same features, by the formulas of their papers."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from starlette.testclient import TestClient
from torch import Tensor
from torch.nn import functional as F

from export.network import Network
from tests.graphs.operators.regions.test_rmac import squares
from tests.service.api.exported import make, png
from tests.tiny import TinyClassifier, card

ROOT = Path(__file__).parents[3]
BOUND = 1e-5
"""Of descriptors, relative to their largest number: float32 features of some roundings, pooled in float32."""


def fill(folder: Path) -> dict[str, Network]:
    """Write models into a repository: `digits`, `colour`, and two with their torch originals, which are returned."""
    shutil.copytree(ROOT / "models" / "digits", folder / "digits")
    TinyClassifier.random(1).save(folder / "colour" / "1", card())
    return make(folder, "gap", "gem")


def post(client: TestClient, query: str, *pictures: np.ndarray) -> np.ndarray:
    """The descriptors, (N,D), as a .npy file has them."""
    files = [("image", ("a.png", png(pixels))) for pixels in pictures]
    response = client.post(f"/v1/embed?{query}", files=files, headers={"Accept": "application/x-npy"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-npy"
    vectors = np.load(io.BytesIO(response.content))
    assert vectors.dtype == np.float32
    return np.asarray(vectors)


def picture(rng: np.random.Generator, size: tuple[int, int], channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (*size, channels), np.uint8)


def gem(x: Tensor, p: float) -> Tensor:
    return x.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)


def spoc(x: Tensor) -> Tensor:
    """Babenko and Lempitsky 2015, before whitening: a Gaussian of a sixth of the shorter side around the centre."""
    h, w = x.shape[2:]
    y, z = (torch.arange(side, dtype=x.dtype) - (side - 1) / 2 for side in (h, w))
    weights = torch.exp(-(y[:, None] ** 2 + z[None] ** 2) / (2 * (min(h, w) / 6) ** 2))
    return (weights * x).sum((2, 3))


def crow(x: Tensor) -> Tensor:
    """Kalantidis, Mellina, Osindero 2015, a = b = 2."""
    strength = x.sum(1, keepdim=True)
    weights = (strength / strength.pow(2).sum((2, 3), keepdim=True).sqrt()).nan_to_num().sqrt()
    share = (x != 0).to(x.dtype).mean((2, 3))
    rarity = torch.where(share > 0, (share.sum(1, keepdim=True) / share.clamp(min=1e-30)).log(), 0)
    return (weights * x).sum((2, 3)) * rarity


def rmac(x: Tensor) -> Tensor:
    """Tolias, Sicre, Jégou 2015, with the whole map as a region."""
    total = F.normalize(x.amax((2, 3)), dim=1, eps=1e-6)
    for top, left, side in squares(x.shape[2], x.shape[3], 3):
        total = total + F.normalize(x[:, :, top : top + side, left : left + side].amax((2, 3)), dim=1, eps=1e-6)
    return F.normalize(total, dim=1, eps=1e-6)


def pyramid(x: Tensor, *levels: int) -> Tensor:
    """Region after region, in each channel after channel."""
    return torch.cat([F.adaptive_max_pool2d(x, n).flatten(2).transpose(1, 2).flatten(1) for n in levels], 1)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool=avg": lambda x: x.mean((2, 3)),
    "pool=max": lambda x: x.amax((2, 3)),
    "pool=gem": lambda x: gem(x, 3),
    "pool=gem&p=4.5": lambda x: gem(x, 4.5),
    "pool=spoc": spoc,
    "pool=crow": crow,
    "pool=rmac": rmac,
    "pool=gem,max&p=2": lambda x: torch.cat([gem(x, 2), x.amax((2, 3))], 1),
    "pool=max&levels=1,2,4": lambda x: pyramid(x, 1, 2, 4),
    "pool=max,max&output_size=2": lambda x: torch.cat([pyramid(x, 2)] * 2, 1),
    "pool=mean_std": lambda x: torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1),
}

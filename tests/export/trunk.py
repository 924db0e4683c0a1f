"""A backbone of one convolution, for tests that are about what comes after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from export.network import Network


class Trunk(nn.Module):
    """3×3, stride 2, ReLU. `padding=0` makes 3×3 the smallest image."""

    def __init__(self, *, in_channels: int = 3, num_features: int = 6, padding: int = 1) -> None:
        super().__init__()
        self.in_channels, self.num_features, self.total_stride = in_channels, num_features, 2
        self.conv = nn.Conv2d(in_channels, num_features, 3, 2, padding)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


def tiny_network(seed: int = 0, *, classes: int = 4, padding: int = 1, **head: Any) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(Trunk(padding=padding), head or {"pooling": "gap"}, classes)
        for parameter in network.head.parameters():  # not where the training starts: there some gates are exactly ½
            parameter.data.add_(0.3 * torch.rand_like(parameter))
    return network.eval()

"""Backbones: nn.Modules from images (N,in_channels,H,W) of any size to features (N,num_features,H',W')."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from export.backbones.convnet import ConvNet
from export.backbones.resnet import resnet18, resnet34, resnet50

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "convnet": ConvNet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
}
"""Every backbone by name; each takes the number of the image's channels."""


def create_backbone(name: str, in_channels: int = 3) -> nn.Module:
    """Build a backbone with random weights, drawn from torch's global generator.

    Args:
        name: a key of BACKBONES.
        in_channels: of the image.

    Raises:
        ValueError: an unknown name.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; there are {', '.join(BACKBONES)}")
    return BACKBONES[name](in_channels)


__all__ = ["BACKBONES", "create_backbone"]

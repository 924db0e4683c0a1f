"""A network: backbone, pooling head, classifier. How it is trained, exported or served is not its business."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from export.heads import create_head


class Backbone(Protocol):
    """What a backbone has beside being an nn.Module from (N,in_channels,H,W) to features (N,num_features,H',W')."""

    in_channels: int
    num_features: int
    total_stride: int


class Network(nn.Module):
    """Image in, (logits, embedding) out; the two steps are `forward_features` and `forward_head`.

    Args:
        backbone: an nn.Module that is a Backbone.
        head: the pooling head's configuration, `{"pooling": name, **knobs}`.
        num_classes: K.

    Attributes:
        in_channels: channels of the image, 1 or 3.
        num_features: width D of the embedding.
        total_stride: pixels of the image a step on the feature map.
        num_classes: K.

    Raises:
        ValueError: the head's configuration is not known, or num_classes < 1.
    """

    def __init__(self, backbone: nn.Module, head: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        trunk: Backbone = backbone  # type: ignore[assignment]  # nn.Module types every attribute as Tensor | Module
        config = dict(head)
        if "pooling" not in config:
            raise ValueError(f"a head's configuration needs the member 'pooling', got {sorted(config)}")
        self.backbone = backbone
        self.head = create_head(config.pop("pooling"), trunk.num_features, **config)
        self.classifier = nn.Linear(self.head.num_features, num_classes)
        self.in_channels = trunk.in_channels
        self.num_features = self.head.num_features
        self.total_stride = trunk.total_stride
        self.num_classes = num_classes

    @property
    def head_config(self) -> dict[str, Any]:
        """The head's whole configuration, defaults included, as the card keeps it."""
        return {"pooling": self.head.pooling, **self.head.config}

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images to features.

        Args:
            x: (N,in_channels,H,W), float32, after the card's preprocessing.

        Returns:
            features (N,C,H',W').
        """
        features: Tensor = self.backbone(x)
        return features

    def forward_head(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Map features (N,C,H',W') to logits (N,K), or with `pre_logits` to the embedding (N,D)."""
        embedding: Tensor = self.head(x)
        if pre_logits:
            return embedding
        logits: Tensor = self.classifier(embedding)
        return logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N,in_channels,H,W) to logits (N,K) and embedding (N,D)."""
        embedding = self.forward_head(self.forward_features(x), pre_logits=True)
        return self.classifier(embedding), embedding


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation, without gradients; every module's own mode is restored."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True

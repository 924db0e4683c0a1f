"""A compact convolutional pyramid for small things in pictures of any size.

A convolutional net recognises at the scale that it was trained at. Here one small net (the detector) looks at the image
and at its halvings with the same weights, so that what is learned at one size holds at twice the size. The levels'
features meet on the coarsest level's grid by local maxima. There is no normalisation and no global statistic, so a
position's features depend on its receptive field only: an image can be padded and masked, or cut into tiles, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """x + conv(relu(conv(x))), then ReLU. Starts as the identity (second convolution 0), which stands in for a norm.

    Args:
        channels: of input and output.

    Source: Zhang, Dauphin, Ma, "Fixup initialization", arXiv:1901.09321.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,C,H,W) to (N,C,H,W), >= 0."""
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


class ConvNet(nn.Module):
    """The pyramid: `levels` halvings of the image through one detector of stride 8, merged by maximum.

    Every step that halves has kernel 3 (the stem 5), stride 2 and half its kernel as padding, so every path from h
    pixels gives the same number of rows and the levels meet without resizing.

    Args:
        in_channels: of the image; 1 is grey.
        num_features: channels C of the features.
        widths: channels of the detector at strides 2, 4 and 8.
        depths: residual blocks at strides 4 and 8.
        levels: of the pyramid; the coarsest sees the image at 1 / 2^(levels-1).

    Attributes:
        in_channels: channels of the image.
        num_features: channels C of the features.
        total_stride: pixels of the image a step on the feature map, 8 · 2^(levels-1).

    Raises:
        ValueError: levels < 1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        num_features: int = 96,
        widths: tuple[int, int, int] = (24, 64, 80),
        depths: tuple[int, int] = (2, 1),
        levels: int = 4,
    ) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels must be >= 1, got {levels}")
        self.in_channels = in_channels
        self.num_features = num_features
        self.total_stride = 8 * 2 ** (levels - 1)
        self.levels = levels
        self.detector = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 5, 2, padding=2),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 3, 2, padding=1),
            nn.ReLU(),
            *(Residual(widths[1]) for _ in range(depths[0])),
            nn.Conv2d(widths[1], widths[2], 3, 2, padding=1),
            nn.ReLU(),
            *(Residual(widths[2]) for _ in range(depths[1])),
            nn.Conv2d(widths[2], num_features, 1),
            nn.ReLU(),
        )
        for module in self.detector:
            if isinstance(module, nn.Conv2d):  # the residual blocks' first convolutions keep torch's default
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features.

        Args:
            x: (N,in_channels,H,W), float32, preprocessed; any H, W >= 1.

        Returns:
            features (N, num_features, ⌈H/total_stride⌉, ⌈W/total_stride⌉), >= 0.
        """
        features: Tensor = self.detector(x)
        for _ in range(self.levels - 1):
            # count_include_pad=False: at the rim the average is over the image's own pixels
            x = F.avg_pool2d(x, 3, 2, padding=1, count_include_pad=False)
            features = torch.maximum(F.max_pool2d(features, 3, 2, padding=1), self.detector(x))
        return features

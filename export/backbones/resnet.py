"""ResNet-18, -34 and -50, for weights that people bring: torchvision's keys, so that its files load as they are.

Any image size from 1×1: every downsampling pads, so no map becomes empty. Nothing of the classifier is here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and the shortcut (ResNet-18 and -34).

    Args:
        inputs: channels of x.
        width: channels of the output.
        stride: of the first convolution, and of the shortcut.

    Source: He, Zhang, Ren, Sun, arXiv:1512.03385, figure 5 left.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,inputs,H,W) to (N,width,⌈H/stride⌉,⌈W/stride⌉)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and the shortcut (ResNet-50); the stride is the 3×3's, as in torchvision ("v1.5").

    Args:
        inputs: channels of x.
        width: channels of the 3×3 convolution; the output has four times as many.
        stride: of the 3×3 convolution, and of the shortcut.

    Source: He, Zhang, Ren, Sun, arXiv:1512.03385, figure 5 right.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,inputs,H,W) to (N,4·width,⌈H/stride⌉,⌈W/stride⌉)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """A residual network without its pooling and classifier.

    Args:
        block: BasicBlock or Bottleneck.
        depths: blocks in each of the four stages.
        in_channels: of the image; 3, or 1 for grey.

    Attributes:
        num_features: channels C of the features.
        total_stride: pixels of the image a step on the feature map, 32.
        in_channels: channels of the image.

    Source: He, Zhang, Ren, Sun, arXiv:1512.03385.
    """

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, int, int, int], in_channels: int
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.total_stride = 32
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for stage, (width, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True)):
            blocks = []
            for index in range(depth):
                blocks.append(block(channels, width, stride=2 if stage > 0 and index == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.num_features = channels
        for module in self.modules():
            if isinstance(
                module, nn.Conv2d
            ):  # He initialisation, as torchvision's; BatchNorm starts at 1 and 0 by itself
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features.

        Args:
            x: (N,in_channels,H,W), float32, preprocessed; any H, W >= 1.

        Returns:
            features (N, num_features, ⌈H/32⌉, ⌈W/32⌉), >= 0.
        """
        y: Tensor = torch.relu(self.bn1(self.conv1(x)))  # (N,64,⌈H/2⌉,⌈W/2⌉)
        y = self.maxpool(y)  # (N,64,⌈H/4⌉,⌈W/4⌉)
        for stage in (1, 2, 3, 4):
            y = self.get_submodule(f"layer{stage}")(y)
        return y


def resnet18(in_channels: int = 3) -> ResNet:
    """ResNet-18: 11 176 512 parameters, 512 features."""
    return ResNet(BasicBlock, (2, 2, 2, 2), in_channels)


def resnet34(in_channels: int = 3) -> ResNet:
    """ResNet-34: 21 284 672 parameters, 512 features."""
    return ResNet(BasicBlock, (3, 4, 6, 3), in_channels)


def resnet50(in_channels: int = 3) -> ResNet:
    """ResNet-50: 23 508 032 parameters, 2048 features."""
    return ResNet(Bottleneck, (3, 4, 6, 3), in_channels)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Give the identity (an empty Sequential, which has no keys) or, where the shape changes, a 1×1 projection."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

"""TensorBoard: losses, accuracy by picture size, and the feature maps before and after pooling as images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.accuracy import FILLED, PLACED, Classify, Size, accuracy
from export.digits import Digits, Picture, placed
from export.network import Network
from export.train import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

WATCHED = tuple(size for size in (*FILLED, *PLACED) if size.width * size.height <= 128 * 128)
"""Sizes whose accuracy is followed; the larger ones take too long to be measured during a training."""
SHOWN = Size(640, 480, False)
"""Size of the picture whose features are shown."""


class TensorBoard:
    """Writes what a training leaves: every step's loss, and every `every` steps accuracies and feature maps.

    Args:
        folder: one run; TensorBoard shows its neighbours beside it.
        digits: to measure on; in a training that has seen them, say so in `tag`.
        every: steps between measurements.
        tag: of the accuracies, such as `validation`.
    """

    def __init__(self, folder: Path, digits: Digits, *, every: int = 500, tag: str = "validation") -> None:
        self.writer = _writer(folder)
        self.digits = digits
        self.every = every
        self.tag = tag

    def __call__(self, progress: Progress) -> None:
        """Log one step."""
        self.writer.add_scalar("loss/train", progress.loss, progress.step)
        self.writer.add_scalar("loss/learning_rate", progress.learning_rate, progress.step)
        if progress.step % self.every == 0:
            self.measure(progress.network, progress.step)

    def measure(self, network: Network, step: int) -> None:
        """Log the accuracy at each of the WATCHED sizes, and one digit's features before and after pooling."""
        classify = torch_classifier(network)
        for size in WATCHED:
            scene = "filled" if size.filled else "placed"
            name = f"accuracy_{self.tag}/{scene}_{size.width}x{size.height}"
            self.writer.add_scalar(name, accuracy(classify, self.digits, size), step)
        picture = placed(self.digits.images[0], SHOWN.width, SHOWN.height, 96, np.random.default_rng(0))
        with torch.no_grad():
            features = network.forward_features(as_input(picture[None]))
            embedding = network.forward_head(features, pre_logits=True)
        self.writer.add_image("features/0_picture", picture[None], step)
        self.writer.add_image("features/1_before_pooling", mosaic(features[0])[None], step)
        # One column of the same height a channel, so that it can be read below the maps that it came from.
        self.writer.add_image("features/2_after_pooling", mosaic(embedding[0][:, None, None])[None], step)

    def close(self) -> None:
        """Write out what is not yet written."""
        self.writer.close()


def as_input(pictures: Picture) -> Tensor:
    """Turn grey pictures (N,H,W) uint8 into the digit networks' input (N,1,H,W) float32, −1…1 (digits.PREPROCESSING)."""
    return (torch.from_numpy(pictures)[:, None].float() / 255 - 0.5) / 0.5


def torch_classifier(network: Network) -> Classify:
    """Use a network in evaluation mode as a classifier of grey pictures."""

    def classify(pictures: Picture) -> npt.NDArray[np.int64]:
        with torch.no_grad():
            logits, _ = network(as_input(pictures).contiguous(memory_format=torch.channels_last))
        labels: npt.NDArray[np.int64] = logits.argmax(1).numpy()
        return labels

    return classify


def mosaic(maps: Tensor) -> Picture:
    """Lay maps (C,H,W) out in a grid, each scaled so that it is readable, all on one scale from 0 to their maximum.

    Returns:
        (rows·(h+1), columns·(w+1)) uint8, a bright line between maps.
    """
    channels, height, width = maps.shape
    zoom = max(1, 32 // max(height, width))
    columns = math.ceil(math.sqrt(channels * height / width))
    rows = math.ceil(channels / columns)
    top = float(maps.max())
    levels = (maps.clamp(min=0) * (200 / top if top > 0 else 0)).byte().numpy()
    levels = levels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    h, w = height * zoom + 1, width * zoom + 1
    grid = np.full((rows * h, columns * w), 255, np.uint8)
    for index, level in enumerate(levels):
        row, column = divmod(index, columns)
        grid[row * h : row * h + h - 1, column * w : column * w + w - 1] = level
    return grid


def _writer(folder: Path) -> SummaryWriter:
    """Open a run; imported here so that training without TensorBoard does not need it."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))

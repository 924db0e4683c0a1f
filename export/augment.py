"""Batches of digits to train on, drawn afresh each time: bent, turned, stretched, scaled, placed, on varying grounds.

A batch has one picture size; the digit in it has any. One sampling grid a digit does all of the geometry at once, so a
batch costs a few percent of a training step on it.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Scene = Literal["filling", "placed"]

FINE = 24
"""Side in pixels that a digit is bent at, three times its own."""
LARGEST_PLACED = 140
"""Pixels; largest side of a placed digit."""
SMALLEST_PLACED = 12


class Batch(NamedTuple):
    """Images (B,1,H,W) float32 in −1…1 (digits.PREPROCESSING applied), labels (B,) int64."""

    images: Tensor
    labels: Tensor


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) numbers from [low, high)."""
    return low + (high - low) * torch.rand(count, generator=generator)


def chance(share: float, generator: torch.Generator) -> bool:
    """Draw True with probability `share`."""
    return bool(torch.rand((), generator=generator) < share)


def draw_batch(
    digits: Tensor,
    labels: Tensor,
    scene: Scene,
    size: tuple[int, int],
    count: int,
    *,
    generator: torch.Generator,
    negatives: float = 0.5,
) -> Batch:
    """Draw a batch of pictures of one size.

    Args:
        digits: (N,1,8,8) float32 in 0…1, bright ink on black.
        labels: (N,) int64.
        scene: `filling`: the digit takes about the whole picture; `placed`: 12 px … the smaller side, anywhere in it.
        size: (height, width) of the pictures in pixels.
        count: pictures B.
        generator: of everything that is drawn.
        negatives: share of pictures that are dark ink on a bright ground.
    """
    chosen = torch.randint(len(digits), (count,), generator=generator)
    fine = bent(digits[chosen], generator)
    if scene == "filling":
        boxes, plain = filling_boxes(size, count, generator), uniform(0, 1, count, generator) < 0.15
        padding = "border" if chance(0.5, generator) else "zeros"
    else:
        boxes, plain = placed_boxes(size, count, generator), torch.zeros(count, dtype=torch.bool)
        padding = "zeros"
    theta = placement(boxes, plain, size, generator)
    grid = F.affine_grid(theta, [count, 1, *size], align_corners=False)
    ink = F.grid_sample(fine, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    if min(size) >= 24 and chance(0.15, generator):
        ink = F.avg_pool2d(ink, 3, 1, 1)  # blur
    pictures = (inked(ink, scene, generator).clamp(0, 1) * 255).round() / 255  # as a file would have them
    turned = uniform(0, 1, count, generator)[:, None, None, None] < negatives
    return Batch(torch.where(turned, 1 - pictures, pictures) * 2 - 1, labels[chosen])


def bent(digits: Tensor, generator: torch.Generator) -> Tensor:
    """Scale digits (B,1,8,8) to (B,1,FINE,FINE), smoothly bent, with strokes thinner or thicker."""
    count = len(digits)
    base = F.affine_grid(torch.eye(2, 3).repeat(count, 1, 1), [count, 1, FINE, FINE], align_corners=False)
    coarse = 0.09 * torch.randn(count, 2, 4, 4, generator=generator)  # displacement; the digit's half width is 1
    smooth = F.interpolate(coarse, size=(FINE, FINE), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    draw = float(torch.rand((), generator=generator))
    mode = "bicubic" if draw < 0.55 else "bilinear" if draw < 0.95 else "nearest"
    fine = F.grid_sample(digits, base + smooth, mode=mode, padding_mode="border", align_corners=False).clamp(0, 1)
    return fine.pow(uniform(-0.45, 0.45, count, generator).exp()[:, None, None, None])


def filling_boxes(size: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    """Draw boxes (B,4) = (centre x, centre y, width, height) in pixels that take about the whole picture."""
    height, width = size
    return torch.stack(
        [
            width * (0.5 + uniform(-0.07, 0.07, count, generator)),
            height * (0.5 + uniform(-0.07, 0.07, count, generator)),
            width * uniform(-0.16, 0.06, count, generator).exp(),
            height * uniform(-0.16, 0.06, count, generator).exp(),
        ],
        dim=1,
    )


def placed_boxes(size: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    """Draw boxes (B,4) = (centre x, centre y, width, height) in pixels, any size that fits, anywhere in the picture."""
    height, width = size
    largest = min(height, width, LARGEST_PLACED)
    smallest = min(SMALLEST_PLACED, largest)
    side = uniform(math.log(smallest), math.log(largest + 0.5), count, generator).exp()
    stretch = uniform(-0.125, 0.125, count, generator).exp()
    stretch = torch.where(uniform(0, 1, count, generator) < 0.5, 1.0, stretch)
    w, h = (side * stretch).clamp(max=width), (side / stretch).clamp(max=height)
    x = w / 2 + (width - w) * uniform(0, 1, count, generator)
    y = h / 2 + (height - h) * uniform(0, 1, count, generator)
    return torch.stack([x, y, w, h], dim=1)


def placement(boxes: Tensor, plain: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Build the maps (B,2,3) from picture to digit, for affine_grid, with a small turn and slant drawn for each.

    Args:
        boxes: (B,4) = (centre x, centre y, width, height) in pixels.
        plain: (B,) bool; where it is so, the digit takes exactly the picture, neither turned nor slanted.
        size: (height, width) of the picture.
        generator: of turn (±14°) and slant (±0.2).
    """
    height, width = size
    x, y, w, h = boxes.unbind(1)
    x, y = torch.where(plain, width / 2, x), torch.where(plain, height / 2, y)
    w, h = torch.where(plain, float(width), w), torch.where(plain, float(height), h)
    turn = torch.where(plain, 0.0, uniform(-14, 14, len(boxes), generator) * math.pi / 180)
    slant = torch.where(plain, 0.0, uniform(-0.2, 0.2, len(boxes), generator))
    cos, sin = turn.cos(), turn.sin()
    rows = []
    for along_x, along_y in ((cos, sin + slant), (-sin, cos)):  # in the digit's own frame, its box being −1…1
        shift = along_x * (width - 2 * x) / w + along_y * (height - 2 * y) / h
        rows.append(torch.stack([along_x * width / w, along_y * height / h, shift], dim=1))
    return torch.stack(rows, dim=1)


def inked(ink: Tensor, scene: Scene, generator: torch.Generator) -> Tensor:
    """Lay ink (B,1,H,W), 0…1, over grounds of varying level, noise and shade; strokes vary in brightness."""
    count, _, height, width = ink.shape

    def each(low: float, high: float) -> Tensor:
        return uniform(low, high, count, generator)[:, None, None, None]

    ground = each(0, 0.25) * (each(0, 1) < 0.7)
    bright = ground + (1 - ground) * each(0.55, 1)
    if scene == "filling":  # half of them as scanned: black ground, full ink
        clean = each(0, 1) < 0.5
        ground, bright = torch.where(clean, 0, ground), torch.where(clean, each(0.8, 1), bright)
    pictures = ground + (bright - ground) * ink
    if scene == "placed" or chance(0.5, generator):
        pictures = pictures + each(0, 0.07) * torch.randn(ink.shape, generator=generator)
        if chance(0.25, generator):  # light falls unevenly
            shade = uniform(-0.1, 0.1, count * 9, generator).reshape(count, 1, 3, 3)
            pictures = pictures + F.interpolate(shade, size=(height, width), mode="bilinear", align_corners=False)
    return pictures

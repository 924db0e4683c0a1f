"""The README's picture: one model's answers for pictures from 8×8 to 4000×3000, drawn from the pictures themselves."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from export.accuracy import Classify
from export.digits import Picture, load_split
from export.samples import sample

_INK, _PAPER, _FAINT, _ACCENT = (15, 23, 42), (255, 255, 255), (148, 163, 184), (5, 150, 105)
_WIDTH, _MARGIN, _GAP, _CAPTION = 1280, 32, 24, 64


class Shown(NamedTuple):
    """A picture of the overview: its size in pixels, the digit in it, how large it is drawn, and a seed for its digit and place."""

    width: int
    height: int
    label: int
    zoom: float
    seed: int


ROWS = (
    (
        Shown(8, 8, 5, 20, 0),
        Shown(16, 16, 3, 10, 1),
        Shown(12, 40, 7, 4, 2),
        Shown(40, 12, 2, 4, 3),
        Shown(33, 71, 9, 2.25, 4),
        Shown(96, 48, 4, 1.7, 5),
        Shown(128, 128, 8, 1.25, 6),
    ),
    (Shown(640, 480, 3, 0.75, 0), Shown(4000, 3000, 2, 0.16, 0)),
)
"""Laid out in lines; what is drawn larger or smaller than it is says so."""


def draw_overview(classify: Classify, path: Path) -> None:
    """Classify the pictures of ROWS, each as it is, and draw them with their labels.

    Args:
        classify: grey pictures (N,H,W) uint8 to labels.
        path: of the PNG to write.
    """
    test = load_split().test
    heights = [max(round(shown.height * shown.zoom) for shown in row) + _CAPTION for row in ROWS]
    canvas = Image.new("RGB", (_WIDTH, sum(heights) + _GAP * (len(ROWS) - 1) + 2 * _MARGIN), _PAPER)
    top = _MARGIN
    for row, height in zip(ROWS, heights, strict=True):
        widths = [_column(shown) for shown in row]
        gap = (_WIDTH - 2 * _MARGIN - sum(widths)) / max(1, len(row) - 1)
        left = float(_MARGIN)
        for shown, width in zip(row, widths, strict=True):
            picture = sample(test, shown.label, shown.width, shown.height, shown.seed)
            label = int(classify(picture[None])[0])
            _draw(canvas, picture, shown, label, (round(left), top + height - _CAPTION))
            left += width + gap
        top += height + _GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.quantize(128).save(path, optimize=True)


def _column(shown: Shown) -> int:
    return max(round(shown.width * shown.zoom), 150)


def _draw(canvas: Image.Image, picture: Picture, shown: Shown, label: int, corner: tuple[int, int]) -> None:
    """Draw a picture with its lower left corner at `corner` (x, y), and its caption below."""
    left, bottom = corner
    size = (round(shown.width * shown.zoom), round(shown.height * shown.zoom))
    resample = Image.Resampling.NEAREST if shown.zoom >= 1 else Image.Resampling.LANCZOS
    canvas.paste(Image.fromarray(picture).resize(size, resample), (left, bottom - size[1]))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left - 1, bottom - size[1] - 1, left + size[0], bottom), outline=_FAINT)
    said = f"{shown.width} x {shown.height} px, shown x{shown.zoom:g}"  # the font has no × and no arrow
    pen.text((left, bottom + 8), f"{label}", fill=_ACCENT if label == shown.label else (220, 38, 38), font=_font(26))
    pen.text((left, bottom + 40), said, fill=_INK, font=_font(13))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

"""Samples of more than 8 bits to 8, once, after compositing. Nothing about file formats belongs here."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Alpha = Literal["none", "straight", "premultiplied"]

_ROWS_AT_ONCE = 64  # bounds the intermediates, 8 bytes a sample, to a strip of the picture


def to_eight_bits(samples: npt.NDArray[np.uint16], maximum: int, alpha: Alpha = "none") -> npt.NDArray[np.uint8]:
    """Composite on white and scale to 0…255, rounding once.

        y = round(255/M · v)                          no alpha; M = 65535: round(v / 257)
        y = round(255/M² · (v a + M (M − a)))         straight alpha
        y = round(255/M · min(M, v + M − a))          premultiplied alpha

    Args:
        samples: (H, W, C), 0…maximum; with alpha, the last channel is it.
        maximum: M, the value of white; 65535 for 16 bits.
        alpha: what the last channel is, and how colours relate to it.

    Returns:
        (H, W, C), or (H, W, C − 1) with alpha.
    """
    table = np.rint(np.minimum(np.arange(65_536), maximum) * (255 / maximum)).astype(np.uint8)
    height, width, channels = samples.shape
    flat = np.empty((height, width, channels - (alpha != "none")), np.uint8)
    for row in range(0, height, _ROWS_AT_ONCE):
        rows = samples[row : row + _ROWS_AT_ONCE]
        if alpha == "none":
            flat[row : row + _ROWS_AT_ONCE] = table[rows]
            continue
        colour, opacity = rows[..., :-1].astype(np.float64), rows[..., -1:].astype(np.float64)
        if alpha == "straight":
            composite = (colour * opacity + maximum * (maximum - opacity)) / maximum
        else:
            composite = np.minimum(maximum, colour + (maximum - opacity))
        flat[row : row + _ROWS_AT_ONCE] = np.rint(composite * (255 / maximum))
    return flat

"""A map over a picture, in colours: its lowest value dark, its highest bright."""

from __future__ import annotations

import base64

import numpy as np

_ROWS_AT_ONCE = 2**18
"""Pixels that are mixed at once: what that allocates stays in the cache."""

_INFERNO = """
AAAEAQAFAQEGAQEIAgEKAgIMAgIOAwIQBAMSBAMUBQQXBgQZBwUbCAUdCQYfCgciCwckDAgmDQgpDgkrEAktEQowEgoyFAs0FQs3Fgs5GAw8GQw+GwxBHAxD
HgxFHwxIIQxKIwxMJAxPJgxRKAtTKQtVKwtXLQtZLwpbMQpcMgpeNApfNglhOAliOQljOwlkPQllPglmQApnQgpoRApoRQppRwtqSQtqSgxrTAxrTQ1sTw1s
UQ5sUg5tVA9tVQ9tVxBuWRBuWhFuXBJuXRJuXxNuYRNuYhRuZBVuZRVuZxZuaRZuahdubBhubRhubxlucRluchpudBpudRtudxxteBxteh1tfB1tfR5tfx5s
gB9sgiBshCBrhSFrhyFriCJqiiJqjCNpjSNpjyRpkCVokiVokyZnlSZnlydmmCdmmihlmylknSlknypjoCpjoitioyxhpSxgpi1gqC5fqS5eqy9erTBdrjBc
sDFbsTJaszJatDNZtjRYtzVXuTVWujZVvDdUvThTvzlSwDpRwTpQwztPxDxOxj1Nxz5MyD9LykBKy0FJzEJIzkNHz0RG0EVF0kZE00dD1EhC1UpB10s/2Ew+
2U092k4821A73VE63lI431M34FU24VY14lc041kz5Fox5Vww5l0v514u6GAt6WEr6mMq62Qp62Yo7Gcm7Wkl7mok72wj724h8G8g8XEf8XMd8nQc83Yb83gZ
9HkY9XsX9X0V9n4U9oAT94IS94QQ+IUP+IcO+IkM+YsL+YwK+Y4J+pAI+pIH+pQH+5YG+5cG+5kG+5sG+50H/J8H/KEI/KMJ/KUK/KYM/KgN/KoP/KwR/K4S
/LAU/LIW/LQY+7Ya+7gd+7of+7wh+74j+sAm+sIo+sQq+sYt+ccv+cky+cs1+M03+M8699E999NA9tVD9tdG9dlJ9dtM9N1P9N9T9OFW8+Na8+Vd8uZh8uhl
8upp8ext8e1x8e918fF58vJ98vSC8/WG8/aK9PiO9fmS9vqW+Pua+fyd+v2h/P+k
"""
"""The colour map inferno, 256 colours of RGB bytes: perceptually uniform, also in grey and for the colour-blind.

Source: Nathaniel J. Smith and Stéfan van der Walt, 2015, https://bids.github.io/colormap; dedicated to the public domain (CC0).
"""

COLOURS = np.frombuffer(base64.b64decode(_INFERNO), np.uint8).reshape(256, 3)
"""(256,3) uint8, from dark to bright."""


def over(picture: np.ndarray, heat: np.ndarray, alpha: float) -> np.ndarray:
    """Lay a map over a picture.

    Args:
        picture: (H,W,1) grey or (H,W,3) RGB, uint8.
        heat: (H,W) float32; its minimum is COLOURS[0], its maximum COLOURS[255]; all alike, it is COLOURS[0]. What is not finite is
            taken for the minimum.
        alpha: share of the map's colour, 0 … 1.

    Returns:
        (H,W,3) uint8.
    """
    finite = np.isfinite(heat)
    low = float(heat.min(initial=np.inf, where=finite))
    high = float(heat.max(initial=-np.inf, where=finite))
    if not finite.all():
        low = low if high >= low else 0.0  # nothing is finite
        heat = np.where(finite, heat, low)
    scale = 255 / (high - low) if high > low else 0.0
    out = np.empty((*heat.shape, 3), np.uint8)
    step = max(1, _ROWS_AT_ONCE // heat.shape[1])
    for top in range(0, len(heat), step):
        rows = slice(top, top + step)
        colour = COLOURS[np.rint((heat[rows].astype(np.float64) - low) * scale).astype(np.uint8)]
        out[rows] = np.rint((1 - alpha) * picture[rows] + alpha * colour)
    return out

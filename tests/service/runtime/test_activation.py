"""Maps on pixels: between the middles of what cells see, wherever paddings put them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graphs.anysize.domains import Cells
from graphs.anysize.sizes import Level
from service.codecs.heat import COLOURS, over
from service.runtime.activation import centre, spread
from service.runtime.features import Grid
from tests.claims import relative_error


def grid(stride: int, first: int, last: int) -> Grid:
    rows, columns = (Cells(Level(side, stride), first, last) for side in ("height", "width"))  # type: ignore[arg-type]
    return Grid(1, rows, columns)


@pytest.mark.parametrize("stride", [1, 2, 7, 32])
def test_patches_of_their_own_give_half_pixel_bilinear_interpolation(stride: int, rng: np.random.Generator) -> None:
    """Cells that see s pixels each, s apart, are torch's align_corners=False."""
    h, w = (int(side) for side in rng.integers(1, 9, 2))
    cells = rng.normal(size=(h, w)).astype(np.float32)
    got = spread(cells, grid(stride, 0, stride - 1), h * stride, w * stride)
    expected = F.interpolate(torch.from_numpy(cells)[None, None], scale_factor=stride, mode="bilinear")[0, 0].numpy()
    assert got.dtype == np.float32
    assert relative_error(got, expected) <= 1e-6


@pytest.mark.parametrize(("first", "last", "middle"), [(-1, 1, 0.0), (-3, 4, 0.5), (0, 6, 3.0), (5, 5, 5.0)])
def test_a_cells_own_value_stands_at_its_middle(first: int, last: int, middle: float, rng: np.random.Generator) -> None:
    where = grid(4, first, last)
    assert centre(where.rows) == middle
    cells = rng.normal(size=(6, 3)).astype(np.float32)
    heat = spread(cells, where, 40, 25)
    if middle == int(middle):
        at = int(middle)
        np.testing.assert_allclose(heat[at : at + 24 : 4, at : at + 12 : 4], cells, rtol=1e-6, atol=1e-7)
        assert (heat[: at + 1] == heat[at]).all()  # before the first middle nothing changes
    assert (heat[25:] == heat[25]).all()  # nor behind the last
    assert heat.min() >= cells.min() - 1e-6
    assert heat.max() <= cells.max() + 1e-6


def test_colours_get_brighter_all_the_way() -> None:
    """Of a perceptually uniform map lightness rises; by the luma of ITU-R BT.709, which is near enough for its sign."""
    luma = COLOURS.astype(np.float64) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) > -0.75).all()  # rounding to bytes
    assert luma[0] < 1
    assert luma[255] > 240


def test_mixing_in_parts_is_mixing_at_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = rng.integers(0, 256, (33, 21, 3), np.uint8)
    heat = rng.normal(size=(33, 21)).astype(np.float32)
    whole = over(picture, heat, 0.4)
    monkeypatch.setattr("service.codecs.heat._ROWS_AT_ONCE", 50)
    monkeypatch.setattr("service.runtime.activation._ROWS_AT_ONCE", 50)
    np.testing.assert_array_equal(over(picture, heat, 0.4), whole)
    np.testing.assert_array_equal(over(picture, heat, 0.0), picture)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_dark(odd: float, rng: np.random.Generator) -> None:
    """A network may overflow; its picture is still one."""
    heat = rng.normal(size=(4, 5)).astype(np.float32)
    heat[1, 2] = odd
    shown = over(np.zeros((4, 5, 1), np.uint8), heat, 1.0)
    assert shown[1, 2].tolist() == COLOURS[0].tolist()
    assert (shown.reshape(-1, 3) == COLOURS[255]).all(1).sum() == 1
    assert (over(np.zeros((4, 5, 1), np.uint8), np.full_like(heat, odd), 1.0) == COLOURS[0]).all()

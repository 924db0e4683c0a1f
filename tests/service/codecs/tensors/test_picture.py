from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.codecs.images import decode
from service.codecs.tensors.dtypes import DTYPES
from service.codecs.tensors.picture import GAP, encode_png, side_by_side
from service.errors import InvalidTensor, PayloadTooLarge

LIMIT = 1_000_000


def opened(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4), (300, 2, 3)])
def test_bytes_come_back_from_the_png(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    for layout in (pixels, np.asfortranarray(pixels), pixels[::-1]):
        np.testing.assert_array_equal(opened(encode_png(layout)), layout.squeeze(2) if shape[2:] == (1,) else layout)


def test_pictures_go_round_through_the_image_decoder(rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (9, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(encode_png(pixels), channels="RGB", max_pixels=LIMIT), pixels)


@pytest.mark.parametrize("name", DTYPES)
def test_numbers_are_rounded_and_clipped(name: str) -> None:
    kind = DTYPES[name].kind
    numbers = [0, 1, 127] if kind != "f" else [0.4, 0.5, 1.5, 254.6, 255.5, 1e4, -3, np.inf, -np.inf, np.nan]
    expected = [0, 1, 127] if kind != "f" else [0, 0, 2, 255, 255, 255, 0, 255, 0, 0]
    if name in {"int16", "int32", "int64"}:
        numbers, expected = [*numbers, 256, -1], [*expected, 255, 0]
    if name == "uint64":
        numbers, expected = [*numbers, 2**64 - 1], [*expected, 255]
    assert opened(encode_png(np.array([numbers], name))).tolist() == [expected]


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0, 3), (2, 2, 2), (2, 2, 5), (1, 2, 2, 3)])
def test_other_shapes_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidTensor, match=r"expected a shape of \(H, W\).*got \("):
        encode_png(np.zeros(shape, np.uint8))


def test_a_pooled_picture_stands_beside_its_original_at_its_height(rng: np.random.Generator) -> None:
    before = rng.integers(0, 256, (12, 8, 3), dtype=np.uint8)
    after = before[::4, ::4]
    both = side_by_side(before, after, max_pixels=LIMIT)
    assert both.shape == (12, 8 + GAP + 8, 3)
    np.testing.assert_array_equal(both[:, :8], before)
    assert (both[:, 8 : 8 + GAP] == 255).all()
    np.testing.assert_array_equal(both[:, 8 + GAP :], after.repeat(4, axis=0).repeat(4, axis=1))
    turned = side_by_side(after, before, max_pixels=LIMIT)
    np.testing.assert_array_equal(turned, np.concatenate([both[:, 8 + GAP :], both[:, 8 : 8 + GAP], before], axis=1))


def test_nearest_neighbour_is_pillows_at_any_ratio(rng: np.random.Generator) -> None:
    for _ in range(50):
        low, height, width = (int(size) for size in rng.integers(1, 40, 3))
        low, height = sorted((low, height))
        after = rng.integers(0, 256, (low, width), dtype=np.uint8)
        got = side_by_side(np.zeros((height, 1), np.uint8), after, max_pixels=LIMIT)[:, 1 + GAP :, 0]
        assert got.shape == (height, max(1, round(width * height / low)))
        oracle = np.asarray(Image.fromarray(after).resize(got.shape[::-1], Image.Resampling.NEAREST))
        # Where a centre falls on an edge, either neighbour is the nearest.
        rows, columns = (
            np.array([(2 * i + 1) * old % (2 * new) != 0 for i in range(new)])
            for old, new in zip(after.shape, got.shape, strict=True)
        )
        np.testing.assert_array_equal(got[rows][:, columns], oracle[rows][:, columns])


@pytest.mark.parametrize(("left", "right"), [(1, 3), (3, 4), (1, 4), (4, 4), (1, 1)])
def test_grey_colour_and_alpha_stand_side_by_side(left: int, right: int, rng: np.random.Generator) -> None:
    pictures = [rng.integers(0, 256, (2, 3, channels), dtype=np.uint8) for channels in (left, right)]
    both = side_by_side(*pictures, max_pixels=LIMIT)
    channels = max(left, right)
    assert both.shape == (2, 3 + GAP + 3, channels)
    for picture, part in zip(pictures, (both[:, :3], both[:, 3 + GAP :]), strict=True):
        mode = {1: "L", 3: "RGB", 4: "RGBA"}
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        np.testing.assert_array_equal(part, np.asarray(image.convert(mode[channels])).reshape(part.shape))


def test_a_picture_that_would_be_too_wide_is_not_made() -> None:
    with pytest.raises(PayloadTooLarge, match="at most 1000000 pixels, side by side they have 1000009x1000"):
        side_by_side(np.zeros((1000, 1), np.uint8), np.zeros((1, 1000), np.uint8), max_pixels=LIMIT)

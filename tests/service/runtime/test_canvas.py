"""Canvases: every image whole at its place, extents that say so, memory used again, few sides."""

from __future__ import annotations

import numpy as np
import pytest

from service.runtime.canvas import Easel, bucket_count, bucket_side


def images_of(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 256, (*rng.integers(1, 40, 2), 3), np.uint8) for _ in range(count)]


def test_every_image_lies_whole_at_the_top_left_of_its_place(rng: np.random.Generator) -> None:
    easel = Easel()
    for _ in range(5):  # on memory that holds what was there before
        images = images_of(rng, int(rng.integers(1, 9)))
        places = len(images) + int(rng.integers(0, 3))
        height = max(image.shape[0] for image in images) + int(rng.integers(0, 9))
        width = max(image.shape[1] for image in images) + int(rng.integers(0, 9))
        pixels, extents = easel.lay(images, (places, height, width))
        assert pixels.shape == (places, height, width, 3)
        assert extents.shape == (places, 4)
        for place, image in enumerate(images):
            h, w = image.shape[:2]
            assert extents[place].tolist() == [0, 0, h, w]
            assert (pixels[place, :h, :w] == image).all()
        assert (extents[len(images) :] == [0, 0, height, width]).all()


def test_images_of_one_size_are_stacked_in_order(rng: np.random.Generator) -> None:
    images = [rng.integers(0, 256, (5, 7, 1), np.uint8) for _ in range(6)]
    assert (Easel().stack(images, 6) == np.stack(images)).all()
    assert (Easel().stack(images, 8)[:6] == np.stack(images)).all()


def test_lone_image_is_not_copied(rng: np.random.Generator) -> None:
    (image,) = images_of(rng, 1)
    assert np.shares_memory(Easel().stack([image], 1), image)


def test_memory_is_used_again_and_outputs_in_it_are_not_lost(rng: np.random.Generator) -> None:
    easel = Easel()
    first = [rng.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(2)]
    pixels = easel.stack(first, 2)
    handed_through, own = easel.free([pixels[:, 0, 0], np.arange(2)])
    again = easel.stack([image + 1 for image in first], 2)
    assert np.shares_memory(pixels, again)
    assert (handed_through == [image[0, 0] for image in first]).all()
    assert own.tolist() == [0, 1]


def test_memory_of_a_huge_canvas_is_not_kept() -> None:
    easel = Easel()
    usual = easel.blank(1, 4096, 5461, 3)  # just below 64 MiB
    assert np.shares_memory(usual, easel.blank(2, 100, 100, 3))
    huge = easel.blank(1, 4096, 5462, 3)
    assert not np.shares_memory(huge, usual)
    assert not np.shares_memory(huge, easel.blank(1, 4096, 5462, 3))


def test_sides_are_rounded_up_by_an_eighth_or_seven_pixels_at_most() -> None:
    for pixels in range(1, 5000):
        side = bucket_side(pixels)
        assert pixels <= side <= max(pixels * 9 / 8, pixels + 7)
        assert bucket_side(side) == side
    assert len({bucket_side(pixels) for pixels in range(200, 601)}) == 14


@pytest.mark.parametrize(("images", "places"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (1000, 1024)])
def test_counts_are_powers_of_two(images: int, places: int) -> None:
    assert bucket_count(images) == places

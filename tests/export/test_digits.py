from __future__ import annotations

import secrets

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from export import accuracy as measuring
from export.accuracy import FILLED, PLACED, Size, accuracy
from export.augment import draw_batch
from export.digits import SIDES, filling, joined, load_split, negative, placed


def seeded() -> np.random.Generator:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def test_split_is_all_of_the_data_set_in_three_disjoint_parts() -> None:
    split = load_split()
    assert [len(part.labels) for part in split] == [1200, 237, 360]
    everything = np.concatenate([part.images for part in split]).reshape(-1, 64)
    original = np.rint(load_digits().data * 255 / 16)
    assert np.array_equal(np.unique(everything, axis=0), np.unique(original, axis=0))
    seen = {image.tobytes() for part in split[:2] for image in part.images}
    assert not seen & {image.tobytes() for image in split.test.images}


def test_split_is_the_same_each_time_and_even_over_digits() -> None:
    first, second = load_split(), load_split()
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)
    counts = np.bincount(first.test.labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_joined_parts_keep_each_digit_with_its_label() -> None:
    split = load_split()
    both = joined(split.train, split.validation)
    place = int(seeded().integers(len(split.validation.labels)))
    assert np.array_equal(both.images[1200 + place], split.validation.images[place])
    assert both.labels[1200 + place] == split.validation.labels[place]


@pytest.mark.parametrize("size", [(8, 8), (12, 40), (40, 12), (33, 71)])
def test_filling_has_width_and_height_as_asked_and_at_8_pixels_is_the_digit(size: tuple[int, int]) -> None:
    digit = load_split().train.images[int(seeded().integers(1200))]
    picture = filling(digit, *size)
    assert picture.shape == (size[1], size[0])
    assert picture.dtype == np.uint8
    if size == (8, 8):
        assert np.array_equal(picture, digit)


def test_placed_digit_is_found_whole_at_one_place_of_its_picture() -> None:
    random = seeded()
    digit = load_split().train.images[int(random.integers(1200))]
    side, width, height = 24, 90, 50
    picture = placed(digit, width, height, side, random, ground=(0, 0), noise=(0, 0)).astype(int)
    ink = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (side, side))
    differences = np.abs(windows - ink).max(axis=(2, 3))
    assert differences.min() == 0
    assert picture.sum() == ink.sum()


def test_placed_ground_is_as_noisy_as_told() -> None:
    random = seeded()
    digit = np.zeros((8, 8), np.uint8)
    picture = placed(digit, 300, 200, 16, random, ground=(100, 100), noise=(10, 10)).astype(float)
    # 60000 pixels: the mean is within 0.2 and the deviation within 0.15 of the truth at five standard errors
    assert abs(picture.mean() - 100) < 0.3
    assert abs(picture.std() - 10) < 0.3


@pytest.mark.parametrize("side", [0, 51])
def test_a_digit_that_does_not_fit_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"a digit of {side} px does not fit a picture of 90×50"):
        placed(np.zeros((8, 8), np.uint8), 90, 50, side, np.random.default_rng(0))


def test_negative_of_the_negative_is_the_picture() -> None:
    picture = seeded().integers(0, 256, (5, 7), dtype=np.uint8)
    assert np.array_equal(negative(picture).astype(int), 255 - picture.astype(int))
    assert np.array_equal(negative(negative(picture)), picture)


@pytest.mark.parametrize("scene", ["filling", "placed"])
@pytest.mark.parametrize("size", [(8, 8), (40, 12), (64, 100)])
def test_training_pictures_are_8_bit_levels_of_the_size_asked(scene: str, size: tuple[int, int]) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    digits, labels = torch.rand(20, 1, 8, 8), torch.arange(20)
    batch = draw_batch(digits, labels, scene, size, 6, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    assert batch.images.shape == (6, 1, *size)
    assert batch.images.dtype == torch.float32
    levels = (batch.images / 2 + 0.5) * 255
    assert float((levels - levels.round()).abs().max()) < 1e-3
    assert 0 <= float(levels.min()) <= float(levels.max()) <= 255
    again = draw_batch(digits, labels, scene, size, 6, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    assert torch.equal(batch.images, again.images)
    assert torch.equal(batch.labels, again.labels)


def test_training_pictures_are_negatives_in_the_share_asked() -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    digits, labels = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long)  # no ink: the ground alone
    for share, bright in ((0.0, 0), (1.0, 50)):
        generator = torch.Generator().manual_seed(seed)
        images = draw_batch(digits, labels, "placed", (24, 24), 50, generator=generator, negatives=share).images
        assert int((images.mean((1, 2, 3)) > 0).sum()) == bright


def test_training_digit_is_where_its_box_is() -> None:
    # A full square of ink turned by nothing: its centre of mass is the box's centre.
    from export import augment

    seed = secrets.randbits(32)
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    boxes = augment.placed_boxes((60, 90), 40, generator)
    theta = augment.placement(boxes, torch.zeros(40, dtype=torch.bool), (60, 90), generator)
    grid = torch.nn.functional.affine_grid(theta, [40, 1, 60, 90], align_corners=False)
    inside = (grid.abs() <= 1).all(-1).float()  # picture positions that show the digit's box
    rows, columns = torch.arange(60) + 0.5, torch.arange(90) + 0.5
    for box, where in zip(boxes, inside, strict=True):
        x, y, w, h = box.tolist()
        if x - w > 0 and x + w < 90 and y - h > 0 and y + h < 60:  # slanted corners may leave the picture otherwise
            assert abs(float((where.sum(0) * columns).sum() / where.sum()) - x) < 1
            assert abs(float((where.sum(1) * rows).sum() / where.sum()) - y) < 1
            assert abs(float(where.sum()) / (w * h) - 1) < 0.25


def test_sizes_measured_are_those_promised() -> None:
    assert {(size.width, size.height) for size in FILLED} >= {(s, s) for s in (8, 12, 16, 24, 32, 48, 64, 96, 128)}
    assert {(size.width, size.height) for size in FILLED} >= {(12, 40), (40, 12), (96, 48)}
    assert [(size.width, size.height) for size in PLACED] == [(64, 64), (128, 128), (256, 256), (512, 512), (640, 480)]
    assert (min(SIDES), max(SIDES)) == (16, 96)


@pytest.mark.parametrize("inverted", [False, True])
def test_accuracy_is_the_share_that_the_classifier_gets_right(monkeypatch: pytest.MonkeyPatch, inverted: bool) -> None:
    monkeypatch.setattr(measuring, "PIXELS_A_RUN", 50 * 20 * 7)  # several runs, the last one smaller
    digits = load_split().test
    truth = digits.labels.copy()
    wrong = seeded().choice(len(truth), 90, replace=False)
    truth[wrong] = (truth[wrong] + 1) % 10
    seen: list[np.ndarray] = []

    def classify(pictures: np.ndarray) -> np.ndarray:
        start = sum(len(part) for part in seen)
        seen.append(pictures)
        return truth[start : start + len(pictures)]

    assert accuracy(classify, digits, Size(50, 20, True), inverted=inverted) == 0.75
    assert all(part.shape[1:] == (20, 50) for part in seen)
    assert len(seen) == 52
    assert (np.concatenate(seen).mean() > 128) is np.bool_(inverted)

"""The batcher with a masked run: images of many sizes on one canvas, faults on it, and the pixels that are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from service.errors import InternalError
from service.runtime.batcher import Answer, Batcher
from service.runtime.canvas import Tally
from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.grouping import Grouping
from tests.service.runtime.gated import LATER, picture, settle


class Masked:
    """A masked run: each image's own sum, whatever lies beside it, and its first pixel; 255 is poison."""

    def __init__(self) -> None:
        self.canvases: list[tuple[int, ...]] = []

    def plain(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        if (pixels[:, 0, 0, 0] == 255).any():
            raise RuntimeError("poison")
        return [pixels.astype(np.int64).sum((1, 2, 3)), pixels[:, 0, 0, :]]

    def ragged(self, pixels: np.ndarray, extents: np.ndarray) -> Sequence[np.ndarray]:
        self.canvases.append(pixels.shape)
        if (pixels[:, 0, 0, 0] == 255).any():
            raise RuntimeError("poison")
        sums = [image[:h, :w].astype(np.int64).sum() for image, (_, _, h, w) in zip(pixels, extents, strict=True)]
        return [np.array(sums), pixels[:, 0, 0, :]]


SHARING_PAYS = Costs(
    Curve.through([(1, 1e-2), (10_000, 2e-2)]),
    BatchCost(1e-2, Curve.through([(1, 1e-6), (10_000, 1e-2)])),
    BatchCost(1e-2, Curve.through([(1, 1e-6), (10_000, 1e-2)])),
)
"""A run costs as much as ten thousand pixels."""


def crowd_through(masked: Masked, images: Sequence[np.ndarray], **options: object) -> list[Answer | BaseException]:
    """Queue everything, then start: what runs together does not depend on the machine's speed."""

    async def test() -> list[Answer | BaseException]:
        answers = [asyncio.ensure_future(batcher.submit(image, LATER)) for image in images]
        await settle()
        batcher.start()
        return await asyncio.gather(*answers, return_exceptions=True)

    grouping = Grouping(SHARING_PAYS, max_pixels=100_000)
    batcher = Batcher(masked.plain, name="test", grouping=grouping, run_ragged=masked.ragged, **options)  # type: ignore[arg-type]
    try:
        return asyncio.run(test())
    finally:
        batcher.stop()


def assert_own(image: np.ndarray, answer: Answer | BaseException) -> None:
    assert isinstance(answer, Answer), answer
    assert answer.outputs[0] == image.sum()
    assert (answer.outputs[1] == image[0, 0]).all()


def mixed(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 255, (*rng.integers(1, 40, 2), 3), np.uint8) for _ in range(count)]


def test_different_sizes_share_a_canvas_and_get_their_own_answers_in_order(rng: np.random.Generator) -> None:
    masked, images = Masked(), mixed(rng, 200)
    for image, answer in zip(images, crowd_through(masked, images), strict=True):
        assert_own(image, answer)
    assert max(shape[0] for shape in masked.canvases) > 8


def test_image_that_fails_on_a_canvas_fails_alone(rng: np.random.Generator) -> None:
    masked, images = Masked(), mixed(rng, 40)
    bad = int(rng.integers(40))
    images[bad][0, 0, 0] = 255
    for place, (image, answer) in enumerate(zip(images, crowd_through(masked, images), strict=True)):
        if place == bad:
            assert isinstance(answer, InternalError)
        else:
            assert_own(image, answer)
    assert masked.canvases


def test_canvas_run_that_throws_falls_back_to_images_alone(rng: np.random.Generator) -> None:
    class Broken(Masked):
        def ragged(self, pixels: np.ndarray, extents: np.ndarray) -> Sequence[np.ndarray]:
            self.canvases.append(pixels.shape)
            raise RuntimeError("the session is broken")

    masked, images = Broken(), mixed(rng, 30)
    for image, answer in zip(images, crowd_through(masked, images), strict=True):
        assert_own(image, answer)
        assert isinstance(answer, Answer)
    assert masked.canvases


def test_pixels_used_and_wasted_are_counted() -> None:
    masked = Masked()
    images = [picture(1, 20, 30), picture(2, 25, 20), picture(3, 22, 31)]

    async def test() -> None:
        answers = [asyncio.ensure_future(batcher.submit(image, LATER)) for image in images]
        await settle()
        batcher.start()
        await asyncio.gather(*answers)
        await batcher.submit(picture(4, 10, 10), LATER)

    grouping = Grouping(SHARING_PAYS, max_pixels=100_000)
    batcher = Batcher(masked.plain, name="test", grouping=grouping, run_ragged=masked.ragged)
    asyncio.run(test())
    batcher.stop()
    used = 20 * 30 + 25 * 20 + 22 * 31
    assert batcher.tally == Tally(plain=1, ragged=1, pixels_used=used + 100, pixels_wasted=3 * 25 * 31 - used)

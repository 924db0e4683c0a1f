"""Lanes: batches side by side, each once, each lane one at a time. Runs wait for each other, so nothing depends on speed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from service.errors import InternalError
from service.runtime.batcher import Answer, Batcher
from service.runtime.choice import Choice
from service.runtime.grouping import Grouping
from service.runtime.lanes import Lane, Lanes
from service.runtime.partition import spread

LATER = 1e9  # a deadline that never comes


class Corner:
    """A run whose output is each image's first pixel; 255 is poison. It knows who ran it."""

    def __init__(self, meet: threading.Barrier | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._meet = meet
        self._busy = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> Sequence[np.ndarray]:
        assert self._busy.acquire(blocking=False), "a lane ran two batches at once"
        try:
            self.shapes.append(pixels.shape)
            if self._meet is not None:
                self._meet.wait(20)
            if (pixels[:, 0, 0, 0] == 255).any():
                raise RuntimeError("poison")
            return [pixels[:, 0, 0, 0].astype(np.float32)]
        finally:
            self._busy.release()


def picture(value: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def through(whole: Corner, lanes: Lanes, images: Sequence[np.ndarray]) -> list[Answer | BaseException]:
    """Queue everything, then start."""
    grouping = Grouping(None, max_pixels=10_000, lanes=len(lanes.lanes))
    batcher = Batcher(whole, name="test", grouping=grouping, lanes=lanes)

    async def test() -> list[Answer | BaseException]:
        answers = [asyncio.ensure_future(batcher.submit(image, LATER)) for image in images]
        await asyncio.sleep(0)
        batcher.start()
        return await asyncio.gather(*answers, return_exceptions=True)

    try:
        return asyncio.run(test())
    finally:
        batcher.stop()


def test_every_batch_is_run_once_and_begun_in_order() -> None:
    runs = [Corner() for _ in range(3)]
    lanes = Lanes([Lane(run) for run in runs], 100, "test")
    begun: list[int] = []

    def work(batch: int, lane: Lane) -> None:
        begun.append(batch)
        lane.outputs([picture(batch % 200)], Choice([0], (1, 4, 4), ragged=False))

    lanes.run(work, range(100))
    lanes.stop()
    assert sorted(begun) == list(range(100))
    assert sum(len(run.shapes) for run in runs) == 100
    assert sum(lane.tally.plain for lane in lanes.lanes) == 100


def test_two_small_images_run_at_the_same_time() -> None:
    """Each run waits until the other one has begun."""
    meet = threading.Barrier(2)
    runs = [Corner(meet), Corner(meet)]
    whole = Corner()
    answers = through(whole, Lanes([Lane(run) for run in runs], 100, "test"), [picture(1), picture(2)])
    assert [float(answer.outputs[0]) for answer in answers if isinstance(answer, Answer)] == [1, 2]
    assert [len(run.shapes) for run in runs] == [1, 1]
    assert whole.shapes == []


@pytest.mark.parametrize("images", [[picture(1)], [picture(1, 20, 20), picture(2, 30, 30)]], ids=["lone", "large"])
def test_lone_and_large_images_have_all_cores(images: list[np.ndarray]) -> None:
    run, whole = Corner(), Corner()
    answers = through(whole, Lanes([Lane(run), Lane(run)], 100, "test"), images)
    assert [float(answer.outputs[0]) for answer in answers if isinstance(answer, Answer)] == [1, 2][: len(images)]
    assert whole.shapes == [(1, *image.shape) for image in images]
    assert run.shapes == []


def test_image_that_fails_in_a_lane_fails_alone(rng: np.random.Generator) -> None:
    values = rng.integers(0, 255, 40)
    bad = int(rng.integers(40))
    values[bad] = 255
    sizes = rng.integers(1, 6, (40, 2))
    images = [picture(int(value), *size) for value, size in zip(values, sizes.tolist(), strict=True)]
    lanes = Lanes([Lane(Corner()), Lane(Corner())], 100, "test")
    for place, answer in enumerate(through(Corner(), lanes, images)):
        if place == bad:
            assert isinstance(answer, InternalError)
        else:
            assert isinstance(answer, Answer), answer
            assert float(answer.outputs[0]) == values[place]


def test_what_work_raises_comes_out() -> None:
    lanes = Lanes([Lane(Corner()), Lane(Corner())], 100, "test")

    def work(batch: int, lane: Lane) -> None:
        del lane
        if batch == 3:
            raise KeyError(batch)

    with pytest.raises(KeyError):
        lanes.run(work, range(8))
    lanes.stop()


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_spread_keeps_every_image_and_no_lane_has_more_than_its_share(rng: np.random.Generator, lanes: int) -> None:
    """Of as many equal images as lanes or more, no batch holds more than an even share, rounded up."""
    count = int(rng.integers(lanes, 50))
    whole = Choice(range(count), (count, 5, 7), ragged=bool(rng.integers(2)))
    parts = spread([whole], lanes)
    assert [member for part in parts for member in part.members] == list(range(count))
    assert all(part.shape == (len(part.members), 5, 7) for part in parts)
    assert max(len(part.members) for part in parts) <= -(-count // lanes)
    assert all(part.ragged == whole.ragged or len(part.members) == 1 for part in parts)

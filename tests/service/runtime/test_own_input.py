"""A network's own input: its session is made when it is first needed, once, and never from other files than are served."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import DeadlineExceeded, InternalError
from service.runtime import own_input as module
from service.runtime.batcher import Answer
from service.runtime.model import Model
from service.settings import Settings
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card

NETWORK = TinyClassifier.random(3)


def later() -> float:
    return time.monotonic() + 60


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that runs in its thread whatever the machine."""
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: 0.0)
    return NETWORK.save(tmp_path, card(preprocessing={"scale": 1.0}))


def carried(x: np.ndarray) -> np.ndarray:
    """Numbers (C,H,W) as queues carry them."""
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(*x.shape[1:], -1)


def with_model(path: Path, test: Callable[[Model], Coroutine[Any, Any, None]]) -> None:
    model = Model("tiny", "1", path, Settings(), "cpu")
    model.start()
    try:
        asyncio.run(test(model))
    finally:
        model.stop()


def test_crowd_of_the_first_is_answered_by_one_session(
    path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Sixteen at once, of two sizes, each its own logits: relative error ≤ 1e-5 against float64."""
    made: list[int] = []
    make = module.OwnInput._session

    def counted(own: module.OwnInput, threads: int) -> Any:
        made.append(threads)
        return make(own, threads)

    monkeypatch.setattr(module.OwnInput, "_session", counted)
    images = [rng.integers(0, 256, (*((5, 7) if i % 2 else (6, 4)), 3), np.uint8) for i in range(16)]

    async def test(model: Model) -> None:
        x = [image.transpose(2, 0, 1).astype(np.float32) for image in images]
        answers = await asyncio.gather(*(model.own_input.infer(carried(each), later()) for each in x))
        for image, answer in zip(images, answers, strict=True):
            expected = NETWORK.logits(image, card(preprocessing={"scale": 1.0}).preprocessing)
            assert relative_error(model.scores(answer), expected) <= 1e-5
        assert made == [0]

    with_model(path, test)


def test_who_leaves_while_the_session_is_made_does_not_end_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    make = module.OwnInput._session

    def gated(own: module.OwnInput, threads: int) -> Any:
        entered.set()
        assert gate.wait(20)
        return make(own, threads)

    monkeypatch.setattr(module.OwnInput, "_session", gated)
    x = carried(np.zeros((3, 4, 4), np.float32))

    async def test(model: Model) -> None:
        first = asyncio.ensure_future(model.own_input.infer(x, later()))
        second = asyncio.ensure_future(model.own_input.infer(x, later()))
        assert await asyncio.to_thread(entered.wait, 20)
        first.cancel()
        with pytest.raises(DeadlineExceeded):
            await model.own_input.infer(x, time.monotonic())
        gate.set()
        assert isinstance(await second, Answer)
        assert first.cancelled()

    try:
        with_model(path, test)
    finally:
        gate.set()


@pytest.mark.parametrize("change", ["model.onnx", "model.json"])
def test_files_that_were_replaced_are_not_mixed_with_those_that_are_served(
    path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    x = carried(np.zeros((3, 4, 4), np.float32))

    async def test(model: Model) -> None:
        old = path.read_bytes()
        if change == "model.onnx":
            TinyClassifier.random(4, classes=5).save(path.parent, card(labels=[]))
        else:
            (path.parent / change).write_text("{}")
        with pytest.raises(InternalError):
            await model.own_input.infer(x, later())
        assert "its files have changed since the model was loaded; restart to serve them" in caplog.text
        assert path.read_bytes() != old or change != "model.onnx"
        answer = await model.infer(np.zeros((4, 4, 3), np.uint8), later())  # what was loaded is still served
        assert model.scores(answer).shape == (3,)

    with_model(path, test)


def test_failure_to_make_a_session_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = carried(np.zeros((3, 4, 4), np.float32))

    def fail(*_: object) -> None:
        raise MemoryError

    async def test(model: Model) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(module.OwnInput, "_session", fail)
            with pytest.raises(InternalError):
                await model.own_input.infer(x, later())
        assert isinstance(await model.own_input.infer(x, later()), Answer)

    with_model(path, test)


def test_numbers_that_are_not_aligned_are_copied(path: Path, rng: np.random.Generator) -> None:
    """A part of a body may begin anywhere."""
    image = rng.integers(0, 256, (4, 4, 3), np.uint8)
    x = np.ascontiguousarray(image.transpose(2, 0, 1).astype(np.float32))
    odd = np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].reshape(4, 4, -1)

    async def test(model: Model) -> None:
        aligned, unaligned = [await model.own_input.infer(each, later()) for each in (carried(x), odd)]
        assert (model.scores(aligned) == model.scores(unaligned)).all()

    with_model(path, test)


def test_short_models_have_their_session_from_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: 1e3)

    async def test(model: Model) -> None:
        assert model.own_input.tick_for(32, 32) is not None
        assert model.own_input.tick_for(1000, 1000) is None  # more than was measured
        answer = await model.own_input.infer(carried(np.zeros((3, 4, 4), np.float32)), later())
        assert model.scores(answer).shape == (3,)
        assert sum(tally.plain for tally in model.own_input.tallies()) == 1
        assert model.tally.plain == 1

    with_model(path, test)

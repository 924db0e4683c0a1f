"""A repository that changes beside a test: versions that come and go, and a control that looks when it is told to."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from service.runtime.control import Control
from service.runtime.model import Model
from service.runtime.repository import Repository
from service.settings import Settings
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card

CARD = card(preprocessing={"scale": 1.0})


def noise(height: int, width: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def save(folder: Path, version: int, name: str = "tiny", **options: Any) -> None:
    TinyClassifier.random(version).save(folder / name / str(version), CARD, **options)


def remove(folder: Path, version: int) -> None:
    shutil.rmtree(folder / "tiny" / str(version))


def living(folder: Path, test: Callable[[Control, Repository], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run a test beside a repository, as the application does."""
    chosen = Settings.model_validate({"models": folder, "provider": "cpu", "model_control": "poll", **settings})
    repository = Repository.load(chosen)
    repository.start()

    async def course() -> None:
        control = Control(chosen, repository)  # not started: tests say when it looks
        try:
            await test(control, repository)
        finally:
            await control.stop()

    try:
        asyncio.run(course())
    finally:
        repository.stop()


def later() -> float:
    return time.monotonic() + 60


async def is_answered_as(model: Model, version: int, image: np.ndarray) -> None:
    answer = await model.infer(image, later())
    expected = TinyClassifier.random(version).logits(image, CARD.preprocessing)
    assert relative_error(model.scores(answer), expected) <= 1e-5


def states(repository: Repository) -> dict[str, str]:
    return {f"{row.name}/{row.version}": row.state for row in repository.standings()}

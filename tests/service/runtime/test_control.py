"""A repository that changes while it serves: what is found stays answerable, and what nobody holds goes. Looks are called."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ModelNotFound
from service.runtime.control import Control
from service.runtime.model import Model
from service.runtime.repository import Repository
from tests.claims import relative_error
from tests.service.runtime.living import (
    CARD,
    is_answered_as,
    later,
    living,
    noise,
    remove,
    save,
    states,
)
from tests.tiny import TinyClassifier

pytestmark = pytest.mark.usefixtures("own_temporary_folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def test_new_version_is_loaded_by_the_second_look_that_sees_the_same(folder: Path, rng: np.random.Generator) -> None:
    save(folder, 1)
    image = noise(20, 30, 3, rng)

    async def test(control: Control, repository: Repository) -> None:
        forgotten: list[str] = []
        repository.on_change.append(lambda: forgotten.append(repository.models["tiny"].version))
        await is_answered_as(repository.find("tiny", None), 1, image)
        save(folder, 2)
        await control.look()
        assert repository.find("tiny", None).version == "1"
        (folder / "tiny" / "2" / "more").write_bytes(b"is still being copied")
        await control.look()
        assert repository.find("tiny", None).version == "1"
        await control.look()
        assert repository.find("tiny", None).version == "2"
        assert forgotten == ["2"]
        await is_answered_as(repository.find("tiny", None), 2, image)
        with pytest.raises(ModelNotFound, match="no such version; loaded is: 2"):
            repository.find("tiny", "1")

    living(folder, test)


@pytest.mark.parametrize("on_loop", [True, False])
def test_who_found_the_old_version_is_answered_by_it(
    folder: Path, rng: np.random.Generator, on_loop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Late numbers, late pictures and late features too, though the files are gone and other ones serve."""
    monkeypatch.setattr("service.runtime.handover.hand_over_s", lambda: 1e3 if on_loop else 0.0)
    save(folder, 1)
    image = noise(8, 9, 3, rng)
    own = np.ascontiguousarray(image.transpose(2, 0, 1).astype(np.float32))
    carried = own.reshape(-1).view(np.uint8).reshape(8, 9, -1)

    async def test(control: Control, repository: Repository) -> None:
        old = repository.find("tiny", None)
        save(folder, 2)
        remove(folder, 1)
        await control.look()
        await control.look()
        assert repository.find("tiny", None).version == "2"
        assert states(repository) == {"tiny/1": "UNLOADING", "tiny/2": "READY"}
        await is_answered_as(old, 1, image)
        expected = TinyClassifier.random(1).logits(image, CARD.preprocessing)
        answer = await old.own_input.infer(carried, later())
        assert relative_error(old.scores(answer), expected) <= 1e-5
        await old.features.ready(later())
        assert (await old.features.infer(image, later())).outputs[0].shape == (4, 8, 9)

    living(folder, test)


def test_a_model_that_nobody_holds_is_gone_with_its_threads_and_its_copy(
    folder: Path, own_temporary_folder: Path, rng: np.random.Generator
) -> None:
    save(folder, 1)
    image = noise(200, 300, 3, rng)

    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate() if "tiny/1" in thread.name}

    async def test(control: Control, repository: Repository) -> None:
        model = repository.find("tiny", None)
        await is_answered_as(model, 1, image)
        await model.features.ready(later())
        await model.features.infer(image, later())
        gone = weakref.ref(model)
        waited = [thread for thread in threading.enumerate() if "tiny/1" in thread.name]
        assert len(waited) >= 2
        save(folder, 2)
        remove(folder, 1)
        await control.look()
        await control.look()
        assert gone() is not None
        await control._work(int)  # the thread forgets what it did last when it is asked for something else
        gc.disable()
        try:
            del model
            assert gone() is None  # at once: nothing that it holds holds it
        finally:
            gc.enable()
        for thread in waited:
            await asyncio.to_thread(thread.join, 20)
        assert not threads()
        assert states(repository) == {"tiny/2": "READY"}
        repository.loader.sweep()
        copies = [path.relative_to(own_temporary_folder).parts[3:] for path in own_temporary_folder.glob("**/*.onnx")]
        assert copies == [("tiny", "2", "model.onnx")]

    living(folder, test)


@pytest.mark.parametrize("older", [False, True])
def test_versions_that_are_swapped_in_the_middle_of_a_look_are_not_missed(
    folder: Path, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is listed, then 3 comes and 2 goes, then the versions are looked into: neither is seen, 1 perhaps."""
    if older:
        save(folder, 1)
    save(folder, 2)

    async def test(control: Control, repository: Repository) -> None:
        served: list[str] = []
        repository.on_change.append(lambda: served.append(next(iter(repository.versions["tiny"]))))
        for _ in range(3):
            await control.look()
        listed = os.listdir

        def swapped(path: Path) -> list[str]:
            names = listed(path)
            if path == folder / "tiny" and "3" not in names:
                save(folder, 3)
                remove(folder, 2)
            return names

        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", swapped)
            await control.look()
        assert repository.find("tiny", None).version == "2"
        for _ in range(3):
            await control.look()
        assert served == ["3"]

    living(folder, test)


def test_index_says_what_is_being_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, 1)
    seen: list[dict[str, str]] = []

    async def test(control: Control, repository: Repository) -> None:
        make = repository.loader._make

        def watched(*args: Any) -> Model:
            seen.append(states(repository))
            return make(*args)

        monkeypatch.setattr(repository.loader, "_make", watched)
        save(folder, 2)
        await control.look()
        await control.look()
        assert seen == [{"tiny/1": "READY", "tiny/2": "LOADING"}]
        assert states(repository) == {"tiny/2": "READY"}

    living(folder, test)


def test_repository_may_be_empty_and_fill_later(folder: Path) -> None:
    async def test(control: Control, repository: Repository) -> None:
        with pytest.raises(ModelNotFound, match="loaded are: none"):
            repository.find(None, None)
        save(folder, 3)
        await control.look()
        await control.look()
        assert repository.find(None, None).version == "3"
        shutil.rmtree(folder / "tiny")
        await control.look()
        assert repository.models  # it may be a folder that was replaced while it was looked at
        await control.look()
        assert not repository.models

    living(folder, test)  # the folder is not even there

"""A repository that changes while it serves: what is found stays answerable, and what nobody holds goes. Looks are called."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from service.errors import Malformed, ModelNotFound, Overloaded
from service.runtime.control import Control
from service.runtime.loader import Override
from service.runtime.model import Model
from service.runtime.repository import Repository, RepositoryError
from service.runtime.session import ProviderError
from service.settings import Settings
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card

CARD = card(preprocessing={"scale": 1.0})


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Private copies go where the test can look."""
    folder = tmp_path / "private"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


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


def test_broken_version_is_reported_and_the_old_one_serves(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(folder, 1)

    async def test(control: Control, repository: Repository) -> None:
        (folder / "tiny" / "2").mkdir()
        (folder / "tiny" / "2" / "model.onnx").write_bytes(b"junk")
        for _ in range(4):
            await control.look()
        assert repository.find("tiny", None).version == "1"
        assert states(repository) == {"tiny/1": "READY", "tiny/2": "UNAVAILABLE"}
        assert repository.loads == {("tiny", "loaded"): 1, ("tiny", "failed"): 1}
        (line,) = [record.message for record in caplog.records if "tiny/2 is broken" in record.message]
        assert line.endswith("what serves is 1")
        save(folder, 2)
        await control.look()
        await control.look()
        assert states(repository)["tiny/2"] == "READY"

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


@pytest.mark.parametrize(
    ("error", "said"),
    [(ProviderError("no such device"), "no such device"), (KeyError("secret"), "the server's log says")],
)
def test_fault_of_our_own_is_that_versions_alone(
    folder: Path, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, 1)
    save(folder, 1, name="zebra")

    def fail(*_: object) -> None:
        raise error

    async def test(control: Control, repository: Repository) -> None:
        save(folder, 2)
        save(folder, 2, name="zebra")
        await control.look()
        with monkeypatch.context() as patch:
            patch.setattr("service.runtime.model.compile_plan", fail)
            await control.look()
        assert {model.version for model in repository.served} == {"1"}
        for name in ("tiny", "zebra"):
            assert said in repository.refused[name]["2"].reason
            assert "secret" not in repository.refused[name]["2"].reason
        assert "model tiny/2 cannot be loaded" in caplog.text

    living(folder, test)


def test_version_whose_files_change_while_they_are_copied_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, 1)
    copy = shutil.copyfile

    def slow(source: Path, target: Path) -> None:
        copy(source, target)
        (folder / "tiny" / "2" / "late").write_bytes(b"one more")

    async def test(control: Control, repository: Repository) -> None:
        save(folder, 2)
        await control.look()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", slow)
            await control.look()
        assert repository.find("tiny", None).version == "1"
        assert not repository.refused
        await control.look()
        await control.look()
        assert repository.find("tiny", None).version == "2"

    living(folder, test)


@pytest.mark.parametrize("control", ["none", "poll"])
def test_weights_that_are_a_hard_link_are_refused_in_the_copy_too(
    folder: Path, control: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, 1)
    path = folder / "tiny" / "1" / "model.onnx"
    ir.save(ir.load(path), path, external_data="weights.bin")
    settings = {"models": folder, "provider": "cpu", "model_control": control, "skip_broken_models": True}
    assert list(Repository.load(Settings.model_validate(settings)).models) == ["tiny"]
    (folder / "elsewhere").hardlink_to(path.with_name("weights.bin"))
    with suppress(RepositoryError):  # nothing is left to serve
        Repository.load(Settings.model_validate(settings))
    assert "weights.bin has 2 hard links" in caplog.text


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


def test_folder_that_cannot_be_read_takes_nothing_away(folder: Path) -> None:
    save(folder, 1)

    async def test(control: Control, repository: Repository) -> None:
        folder.rename(folder.with_name("elsewhere"))
        with pytest.raises(FileNotFoundError):
            await control.look()
        assert repository.find("tiny", None).version == "1"

    living(folder, test)


def test_explicit_loads_what_it_is_told(folder: Path, rng: np.random.Generator) -> None:
    save(folder, 1)
    save(folder, 1, name="other")
    image = noise(12, 12, 3, rng)

    async def test(control: Control, repository: Repository) -> None:
        assert list(repository.models) == ["other"]
        assert await control.names() == ["other", "tiny"]
        await control.load("tiny", Override())
        model = repository.find("tiny", None)
        await is_answered_as(model, 1, image)
        await control.load("tiny", Override())
        assert repository.find("tiny", None) is model  # its files are the same
        save(folder, 2)
        await control.load("tiny", Override('{"version_policy": {"all": {}}}'))
        assert list(repository.versions["tiny"]) == ["2", "1"]
        await control.unload("tiny")
        assert list(repository.models) == ["other"]
        await control.unload("tiny")  # it is what was wanted
        for change in (control.load("nobody", Override()), control.unload("nobody"), control.load("../x", Override())):
            with pytest.raises(ModelNotFound, match="the repository has no such model"):
                await change

    living(folder, test, model_control="explicit", load_models="other")


def test_explicit_load_that_fails_leaves_what_serves(folder: Path, rng: np.random.Generator) -> None:
    save(folder, 1)
    image = noise(12, 12, 3, rng)

    async def test(control: Control, repository: Repository) -> None:
        model = repository.find("tiny", None)
        with pytest.raises(Malformed, match=r"version 7: model\.onnx: not a readable ONNX file"):
            await control.load("tiny", Override("{}", {"7/model.onnx": b"junk"}))
        assert states(repository) == {"tiny/1": "READY", "tiny/7": "UNAVAILABLE"}
        with pytest.raises(Malformed, match=r"version 7: model\.onnx"):
            await control.load("sent", Override("{}", {"7/model.onnx": b"junk"}))
        assert "sent" not in repository.refused
        with pytest.raises(Malformed, match="config: not a readable configuration"):
            await control.load("tiny", Override("{"))
        with pytest.raises(Malformed, match=r"policy \(specific:9\) chooses none of its versions \(1\)"):
            await control.load("tiny", Override('{"version_policy": {"specific": {"versions": [9]}}}'))
        assert repository.find("tiny", None) is model
        await is_answered_as(model, 1, image)
        await control.load("tiny", Override())
        assert states(repository) == {"tiny/1": "READY"}

    living(folder, test, model_control="explicit", load_models="*")


def test_model_that_was_sent_lives_in_a_private_folder_and_goes_with_it(
    folder: Path, own_temporary_folder: Path, rng: np.random.Generator
) -> None:
    folder.mkdir()
    image = noise(12, 12, 3, rng)
    sent = TinyClassifier.random(5).to_onnx(None).SerializeToString()

    def files() -> list[str]:
        return sorted(path.name for path in own_temporary_folder.glob("*/files/**/*") if path.is_file())

    async def test(control: Control, repository: Repository) -> None:
        given = {"5/model.onnx": sent, "5/model.json": CARD.model_dump_json().encode()}
        await control.load("sent", Override("{}", given))
        await is_answered_as(repository.find("sent", None), 5, image)
        assert files() == ["model.json", "model.onnx"]
        await control.unload("sent")
        repository.loader.sweep()
        assert files() == []
        assert not list(folder.iterdir())

    living(folder, test, model_control="explicit")


def test_changes_take_turns_and_their_number_is_bounded(folder: Path) -> None:
    save(folder, 1)

    async def test(control: Control, repository: Repository) -> None:
        changes = [control.load("tiny", Override()) if i % 2 else control.unload("tiny") for i in range(20)]
        found = await asyncio.gather(*changes, return_exceptions=True)
        refused = [each for each in found if each is not None]
        assert 0 < len(refused) < 20
        assert all(isinstance(each, Overloaded) for each in refused)
        await control.load("tiny", Override())
        assert repository.find("tiny", None).alive

    living(folder, test, model_control="explicit", load_models="tiny")


def test_who_leaves_does_not_end_a_load(folder: Path) -> None:
    save(folder, 1)

    async def test(control: Control, repository: Repository) -> None:
        impatient = asyncio.ensure_future(control.load("tiny", Override()))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        await control.load("tiny", Override())
        assert repository.loads == {("tiny", "loaded"): 1, ("tiny", "failed"): 0}

    living(folder, test, model_control="explicit")


@pytest.mark.parametrize(
    ("names", "said"), [("nobody", "load_models names it, there is no such model"), ("bad", "not")]
)
def test_explicit_start_stops_at_what_cannot_be_loaded(folder: Path, names: str, said: str) -> None:
    save(folder, 1)
    (folder / "bad" / "1").mkdir(parents=True)
    (folder / "bad" / "1" / "model.onnx").write_bytes(b"junk")
    settings = {"models": folder, "provider": "cpu", "model_control": "explicit", "load_models": f"tiny, {names}"}
    with pytest.raises(RepositoryError, match=said):
        Repository.load(Settings.model_validate(settings))
    repository = Repository.load(Settings.model_validate({**settings, "skip_broken_models": True}))
    assert list(repository.models) == ["tiny"]

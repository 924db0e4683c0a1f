"""A repository that does what it is told: loading and unloading by name, models that are sent, and who asks too much."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from service.errors import Malformed, ModelNotFound, Overloaded
from service.runtime.control import Control
from service.runtime.loader import Override
from service.runtime.repository import Repository, RepositoryError
from service.settings import Settings
from tests.service.runtime.living import CARD, is_answered_as, living, noise, save, states
from tests.tiny import TinyClassifier

pytestmark = pytest.mark.usefixtures("own_temporary_folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


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
    ("names", "said"),
    [("nobody", "load_models names it, there is no such model"), ("bad", "model.onnx: not a readable ONNX file")],
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

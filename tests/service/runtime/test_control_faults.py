"""A repository that changes for the worse: what cannot be loaded or read is reported, and takes nothing away that serves."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir
import pytest

from service.runtime.control import Control
from service.runtime.repository import Repository, RepositoryError
from service.runtime.session import ProviderError
from service.settings import Settings
from tests.service.runtime.living import living, save, states

pytestmark = pytest.mark.usefixtures("own_temporary_folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


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


def test_folder_that_cannot_be_read_takes_nothing_away(folder: Path) -> None:
    save(folder, 1)

    async def test(control: Control, repository: Repository) -> None:
        folder.rename(folder.with_name("elsewhere"))
        with pytest.raises(FileNotFoundError):
            await control.look()
        assert repository.find("tiny", None).version == "1"

    living(folder, test)

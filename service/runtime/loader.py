"""From what lies in a repository's folder to models, one at a time. For one thread at a time; nothing here knows what is served.

Where versions come and go, a model is made from a copy of its files. So what is asked for later, such as its features, is there
even if the files are not any more, and a file that is written while it is read is noticed.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import shutil
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from service.errors import InternalError
from service.runtime import heap
from service.runtime.broken import BrokenModel
from service.runtime.configuration import Configuration, configuration_of_json
from service.runtime.folder import Found, Version, find_model, find_models, is_name
from service.runtime.inside import find_inside
from service.runtime.model import Model
from service.runtime.policy import VersionPolicy
from service.runtime.remote import Mirror, RemoteError, is_url
from service.runtime.scratch import Scratch
from service.runtime.session import ProviderError, resolve_provider
from service.runtime.succession import Unsettled
from service.settings import Settings

log = logging.getLogger(__name__)

TAKEN = {"pool": "the operators' name", "stats": "the path of all models' statistics"}
"""Names that /v2 has given away."""


class Override(NamedTuple):
    """What a request to load brings with it.

    Attributes:
        configuration: JSON by Triton's names, in place of config.pbtxt; None: none.
        files: by their path in the model's folder, such as `1/model.onnx`; if there are any, they are all that the model has.
    """

    configuration: str | None = None
    files: Mapping[str, bytes] = {}


class Loader:
    """The way from files to models.

    Attributes:
        folder: of the repository, or of its mirror.
        where: it is, for messages.
        policy: of models that have none of their own.
        provider: where models run.
        loading: name and version of what is being loaded; None: nothing is.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin; nothing is read yet.

        Args:
            settings: checked.

        Raises:
            ProviderError: the device asked for is not there.
            RemoteError: the repository is behind a URL that cannot be used.
        """
        self.provider = resolve_provider(settings.provider)
        self.policy = VersionPolicy.parse(settings.version_policy)
        self._mirror = Mirror(settings.models) if is_url(settings.models) else None
        self.folder = self._mirror.folder if self._mirror is not None else Path(settings.models)
        self.where = settings.models if self._mirror is not None else str(self.folder.absolute())
        self._trouble = ""
        self.loading: tuple[str, str] | None = None
        self._settings = settings
        self._left: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._sent: list[Path] = []
        self._private = Scratch() if settings.model_control != "none" else None

    def find_all(self) -> Mapping[str, Found]:
        """Look through the repository.

        Raises:
            OSError: it cannot be read. RemoteError: the same of one behind a URL, as long as nothing of it is here.
        """
        self._refresh()
        return find_models(self.folder, self.policy)

    def _refresh(self) -> None:
        """Bring what has changed, where the repository is behind a URL. What does not come now is left as it is here."""
        if self._mirror is None:
            return
        trouble, self._trouble = self._trouble, ""
        try:
            self._mirror.refresh()
        except RemoteError as error:
            if not any(self.folder.iterdir()):
                raise
            self._trouble = str(error)
            if self._trouble != trouble:  # once, and not at every look
                log.warning("%s; what was there before serves", error)

    def names(self) -> Sequence[str]:
        """Give the names of models as of the last look; any thread.

        Raises:
            OSError: the folder cannot be read.
        """
        return list(find_models(self.folder, self.policy))

    def find(self, name: str, override: Override = Override()) -> Found | None:  # noqa: B008 - a tuple
        """Look for one model; None where there is none.

        Raises:
            BrokenModel: the configuration or the files that were sent are not valid; see `discard`.
            RemoteError: as `find_all`.
        """
        if not override.files:
            self._refresh()
        folder = self._upload(name, override.files) if override.files else self.folder
        configuration = None
        if override.configuration is not None:
            configuration = configuration_of_json(override.configuration, folder / name)
        return find_model(folder, name, self.policy, configuration) if is_name(name) else None

    def _upload(self, name: str, files: Mapping[str, bytes]) -> Path:
        assert self._private is not None  # models do not come by requests where nothing changes
        folder = Path(tempfile.mkdtemp(prefix="sent-", dir=self._private.folder))
        self._sent.append(folder)
        for path, content in files.items():
            target = folder / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return folder

    def discard(self) -> None:
        """Remove the files that were sent; models that were made of them have their copies."""
        while self._sent:
            shutil.rmtree(self._sent.pop(), ignore_errors=True)

    def load(self, found: Found, version: Version, before: Model | None) -> Model:
        """Load, compile and warm up a version.

        Args:
            found: the model.
            version: of it.
            before: what it follows; what that was asked for beside labels is made, too, so that nobody waits for it again.

        Raises:
            BrokenModel: it cannot be served. Unsettled: its files changed while they were read.
        """
        name, started = found.name, time.monotonic()
        self.loading = name, version.number
        try:
            if name in TAKEN:
                raise BrokenModel(f"no model can be called {name}: at /v2 that is {TAKEN[name]}", version.path)
            model = self._make(found, version)
            if before is not None and before.own_input.made:
                with suppress(InternalError):  # it is logged, and tried again when it is asked for
                    model.own_input.make()
            if before is not None and before.features.made:
                model.features.make()
        finally:
            self.loading = None
            if self._private is not None:
                self.sweep()
        model.fingerprint = version.fingerprint
        took_s = time.monotonic() - started
        log.info("model %s/%s ready on %s in %.2f s", name, version.number, model.session.device, took_s)
        return model

    def _make(self, found: Found, version: Version) -> Model:
        settings, configuration = self._settings, found.configuration
        name, number = found.name, version.number
        if self._private is None:
            return Model(name, number, version.path, settings, self.provider, configuration=configuration)
        own = next(path.parent for path in version.path.parents if path.name == version.number)
        copy = Path(tempfile.mkdtemp(prefix="model-", dir=self._private.folder))
        try:
            path = _copy(own, version, copy / name)
            copied = None if configuration is None else _copy_labels(configuration, copy / name)
            again = find_model(own.parent, name, found.policy, configuration)
            if again is None or again.versions.get(number) != version:
                raise Unsettled
            model = Model(name, number, path, settings, self.provider, configuration=copied)
        except Exception as error:
            self._left.put(copy)
            if isinstance(error, Unsettled):
                raise
            if isinstance(error, BrokenModel):
                raise BrokenModel(error.reason, version.path) from error
            # Whatever it is, it is of this version; what serves goes on.
            log.exception("model %s/%s cannot be loaded", name, number)
            reason = (
                str(error) if isinstance(error, ProviderError) else "it cannot be loaded; the server's log says why"
            )
            raise BrokenModel(reason, version.path) from error
        weakref.finalize(model, self._left.put, copy).atexit = False
        return model

    def sweep(self) -> None:
        """Give back what models have left behind that are gone: their files, and what hangs in rings."""
        gc.collect()
        heap.trim()
        while not self._left.empty():
            shutil.rmtree(self._left.get(), ignore_errors=True)


def _copy(own: Path, version: Version, to: Path) -> Path:
    """Copy a version's files, those behind links within the model's folder too. Returns the ONNX file's copy.

    Raises:
        BrokenModel: a file cannot be read or written, or leaves the model's folder.
    """
    for path in sorted((own / version.number).rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        _copy_file(own, path, to)
    return to / version.path.relative_to(own)


def _copy_labels(configuration: Configuration, to: Path) -> Configuration:
    """Copy files of labels, which versions have in common. Returns the configuration with them."""
    own = configuration.folder
    for tensor in configuration.outputs:
        if tensor.label_filename:
            _copy_file(own, own / tensor.label_filename, to)
    return replace(configuration, folder=to)


def _copy_file(own: Path, path: Path, to: Path) -> None:
    name = path.relative_to(own)
    real = find_inside(own, path)
    try:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, to / name)
        if real.stat().st_nlink > 1:  # so has the copy: weights of such a file are refused (weights.py)
            os.link(to / name, to / f"{name}.link")
    except OSError as error:
        reason = f"{name.as_posix()}: cannot be copied to the temporary folder (TMPDIR): {error.strerror}"
        raise BrokenModel(reason, path) from error

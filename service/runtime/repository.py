"""The model repository: a folder of <name>/<version>/model.onnx, of which the highest version of each name is served."""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from service.errors import InvalidParameter, ModelNotFound
from service.runtime.model import Model
from service.runtime.reading import BrokenModel
from service.runtime.session import Provider, resolve_provider
from service.settings import Settings

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")

TAKEN = {"pool": "the operators' name", "stats": "the path of all models' statistics"}
"""Names that /v2 has given away."""


class RepositoryError(Exception):
    """Models cannot be served; the message has one line for each, with its file and reason."""


class Repository:
    """What is loaded. Made before the socket is bound and unchanged after.

    Attributes:
        models: by name.
        broken: by name, why a model is not served (only where `skip_broken_models` allows it).
        provider: where all of them run.
    """

    def __init__(self, models: Mapping[str, Model], broken: Mapping[str, str], provider: Provider) -> None:
        self.models = models
        self.broken = broken
        self.provider = provider

    @classmethod
    def load(cls, settings: Settings, progress: Callable[[str], None] = log.info) -> Self:
        """Load, compile and warm up every model of `settings.models`, one after the other.

        Raises:
            RepositoryError: the folder has no model, or one is broken and `skip_broken_models` is off; names each.
            ProviderError: the device asked for is not there.
        """
        provider = resolve_provider(settings.provider)
        models: dict[str, Model] = {}
        broken: dict[str, str] = {}
        for name, version, path in _find(settings.models):
            started = time.monotonic()
            try:
                if name in TAKEN:
                    raise BrokenModel(f"{path}: no model can be called {name}: at /v2 that is {TAKEN[name]}")
                models[name] = Model(name, version, path, settings, provider)
            except BrokenModel as error:
                broken[name] = str(error)
                log.error("model %s is broken: %s", name, error)
                continue
            progress(
                f"model {name}/{version} ready on {models[name].session.device} in {time.monotonic() - started:.2f} s"
            )
        if broken and not settings.skip_broken_models:
            raise RepositoryError(
                "\n".join(broken.values()) + "\nTo serve the other models all the same, set skip_broken_models=true."
            )
        if not models:
            raise RepositoryError(
                f"{settings.models.absolute()}: expected <name>/<version>/model.onnx, found no model to serve"
            )
        return cls(models, broken, provider)

    def find(self, name: str | None, version: str | None) -> Model:
        """Get a loaded model; without a name, the only one there is.

        Raises:
            InvalidParameter: 422; no name, and several models.
            ModelNotFound: 404; names what is loaded, the nearest first.
        """
        if name is None:
            if len(self.models) > 1:
                raise InvalidParameter(f"expected model=<name>, one of: {', '.join(self.models)}")
            name = next(iter(self.models))
        model = self.models.get(name)
        if model is None:
            if _NAME.fullmatch(name) and name in self.broken:
                raise ModelNotFound(f"model {name} could not be loaded; the server's log says why")
            nearest = difflib.get_close_matches(name[:128], self.models, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ModelNotFound(f"no such model; loaded are: {', '.join(self.models)}{hint}")
        if version not in {None, model.version}:
            raise ModelNotFound(f"model {name} has no such version; loaded is: {model.version}")
        return model

    def start(self) -> None:
        """Start every model's thread."""
        for model in self.models.values():
            model.start()

    def stop(self) -> None:
        """Finish what is queued and end every thread; blocks."""
        for model in self.models.values():
            model.stop()


def _find(folder: Path) -> list[tuple[str, str, Path]]:
    """List (name, highest version, file) in the folder, by name."""
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        versions = (
            [v for v in entry.iterdir() if v.name.isdecimal() and (v / "model.onnx").exists()] if entry.is_dir() else []
        )
        if versions and _NAME.fullmatch(entry.name):
            newest = max(versions, key=lambda v: int(v.name))
            found.append((entry.name, newest.name, newest / "model.onnx"))
    return found

"""The model repository: what is served. It changes as a whole, on the event loop, between one request's look and the next one's."""

from __future__ import annotations

import difflib
import logging
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Self

from service.errors import InvalidParameter, ModelNotFound
from service.runtime.folder import Found, is_name
from service.runtime.loader import Loader
from service.runtime.model import Model
from service.runtime.policy import VersionPolicy
from service.runtime.remote import RemoteError
from service.runtime.session import Provider
from service.runtime.succession import Refusal, Succession, succeed
from service.settings import Settings

log = logging.getLogger(__name__)


class RepositoryError(Exception):
    """Models cannot be served; the message has one line for each, with its file and reason."""


class Standing(NamedTuple):
    """How one version stands.

    Attributes:
        name: of the model.
        version: a number, as text; None: all of the model is meant.
        state: by the protocol's names.
        reason: why it is not ready, or why what is ready is not what its files say; else empty.
    """

    name: str
    version: str | None
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = ""


class Repository:
    """What is served.

    Attributes:
        models: by name, the highest version: who names none means this one.
        versions: by name and version, the highest first.
        refused: by name and version, what could not be loaded; a version of succession.WHOLE is all of the name.
        loads: how often versions were loaded, by name and `loaded` or `failed`.
        loader: makes models; its thread's, once the application runs.
        provider: where models run.
        on_change: called when other versions serve, by who remembers what was asked of them.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin with nothing.

        Raises:
            ProviderError: the device asked for is not there.
            RepositoryError: the repository is behind a URL that cannot be used.
        """
        self.models: Mapping[str, Model] = {}
        self.versions: Mapping[str, Mapping[str, Model]] = {}
        self.refused: dict[str, Mapping[str, Refusal]] = {}
        self._policies: dict[str, VersionPolicy] = {}
        self.loads: Counter[tuple[str, str]] = Counter()
        try:
            self.loader = Loader(settings)
        except RemoteError as error:
            raise RepositoryError(str(error)) from error
        self.provider: Provider = self.loader.provider
        self.on_change: list[Callable[[], None]] = []
        self._settings = settings
        self._started = False
        self._leaving: list[tuple[str, str, weakref.ref[Model]]] = []

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Begin with what is in the folder.

        Raises:
            RepositoryError: as `fill`. ProviderError: the device asked for is not there.
        """
        repository = cls(settings)
        repository.fill()
        return repository

    def fill(self) -> None:
        """Load, compile and warm up what is to serve from the start, one after the other; before the application runs.

        Raises:
            RepositoryError: nothing will ever be served, or a model is broken and `skip_broken_models` is off; names each. Where
                versions come and go by themselves neither stops the start.
        """
        settings = self._settings
        control, where = settings.model_control, self.loader.where
        try:
            found = self.loader.find_all()
        except (OSError, RemoteError) as error:
            if control != "poll":
                raise RepositoryError(f"{where}: found no model to serve, it cannot be read: {error}") from error
            log.warning("%s cannot be read yet: %s", where, error)
            found = {}
        asked = [name.strip() for name in settings.load_models.split(",") if name.strip()]
        names = list(found) if control != "explicit" or "*" in asked else asked
        problems = [
            f"{where}/{name}: load_models names it, there is no such model" for name in names if name not in found
        ]
        for name in names:
            if name not in found:
                continue
            then = succeed(found[name], {}, {}, self.loader.load)
            self.settle(name, found[name], then)
            problems += [f"{where}/{name}/{version}: {refusal.reason}" for version, refusal in then.refused.items()]
        if problems and not settings.skip_broken_models and control != "poll":
            raise RepositoryError(
                "\n".join(problems) + "\nTo serve the other models all the same, set skip_broken_models=true."
            )
        if not self.models:
            if control == "none":
                raise RepositoryError(f"{where}: expected <name>/<version>/model.onnx, found no model to serve")
            log.warning("%s: no model is served yet", where)

    def settle(self, name: str, found: Found | None, then: Succession) -> None:
        """Have other models serve a name from now on, and note what could not be loaded.

        Args:
            name: of the model.
            found: as it lies there; None: there is no such folder.
            then: who serves.
        """
        before = self.versions.get(name, {})
        self.loads.update({(name, "loaded"): sum(before.get(v) is not model for v, model in then.models.items())})
        was_refused = self.refused.pop(name, {})
        failures = {version: each for version, each in then.refused.items() if was_refused.get(version) != each}
        self.loads.update({(name, "failed"): len(failures)})
        for version, refusal in failures.items():
            which = f"{name}/{version}" if version else name
            serving = f"; what serves is {', '.join(then.models)}" if then.models else ""
            log.error("model %s is broken: %s%s", which, refusal.reason, serving)
        if then.refused:
            self.refused[name] = then.refused
        if found is not None:
            self._policies[name] = found.policy
        elif not then.models:
            self._policies.pop(name, None)
        if dict(before) != then.models:
            self._publish(name, then.models)

    def _publish(self, name: str, models: Mapping[str, Model]) -> None:
        before = self.versions.get(name, {})
        versions = dict(self.versions)
        versions.pop(name, None)
        if models:
            ordered = sorted(models.items(), key=lambda each: int(each[0]), reverse=True)
            versions[name] = dict(ordered)
        if self._started:
            for version, model in models.items():
                if before.get(version) is not model:
                    model.start()
        # From here on nobody finds the old ones: no answer of theirs begins after one of the new has.
        self.versions = dict(sorted(versions.items()))
        self.models = {each: next(iter(served.values())) for each, served in self.versions.items()}
        for forget in self.on_change:
            forget()
        for version, model in before.items():
            if models.get(version) is not model:
                model.remembered.clear()
                self._leaving.append((name, version, weakref.ref(model)))
                log.info("model %s/%s is unloaded when its last request is answered", name, version)

    def find(self, name: str | None, version: str | None) -> Model:
        """Get a loaded model; without a name the only one there is, without a version the highest.

        Raises:
            InvalidParameter: 422; no name, and several models.
            ModelNotFound: 404; names what is loaded, the nearest first.
        """
        if name is None:
            if len(self.models) > 1:
                raise InvalidParameter(f"expected model=<name>, one of: {', '.join(self.models)}")
            name = next(iter(self.models), "")
        model = self.models.get(name)
        if model is None:
            if is_name(name) and name in self.refused:
                raise ModelNotFound(f"model {name} could not be loaded; the server's log says why")
            nearest = difflib.get_close_matches(name[:128], self.models, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ModelNotFound(f"no such model; loaded are: {', '.join(self.models) or 'none'}{hint}")
        if version is None or version == model.version:
            return model
        versions = self.versions[name]
        if version not in versions:
            raise ModelNotFound(f"model {name} has no such version; loaded is: {', '.join(versions)}")
        return versions[version]

    def policy(self, name: str) -> VersionPolicy:
        """Give what chooses a model's versions."""
        return self._policies.get(name, self.loader.policy)

    @property
    def served(self) -> list[Model]:
        """Every version that is served, by name, the highest first."""
        return [model for versions in self.versions.values() for model in versions.values()]

    def standings(self) -> list[Standing]:
        """Say how everything stands, by name."""
        rows = [
            Standing(model.name, model.version, "READY", self._doubt(model)) for model in self.served if model.alive
        ]
        rows += [Standing(m.name, m.version, "UNAVAILABLE", "its thread has ended") for m in self.served if not m.alive]
        for name, refused in self.refused.items():
            for version, refusal in refused.items():
                if version not in self.versions.get(name, {}):
                    rows.append(Standing(name, version or None, "UNAVAILABLE", refusal.reason))
        rows += [
            Standing(name, version, "UNLOADING", "its last requests are answered") for name, version in self.leaving
        ]
        loading = self.loader.loading
        if loading is not None and loading[1] not in self.versions.get(loading[0], {}):
            rows = [row for row in rows if row[:2] != loading]
            rows.append(Standing(*loading, "LOADING"))
        return sorted(rows, key=lambda row: (row.name, int(row.version or 0)))

    def _doubt(self, model: Model) -> str:
        refusal = self.refused.get(model.name, {}).get(model.version)
        return f"as loaded before; what its files are now cannot be: {refusal.reason}" if refusal else ""

    @property
    def leaving(self) -> list[tuple[str, str]]:
        """Name and version of models that are not served any more and still answer somebody."""
        self._leaving = [each for each in self._leaving if each[2]() is not None]
        return [(name, version) for name, version, _ in self._leaving]

    def start(self) -> None:
        """Start every model's thread, also of those that come."""
        self._started = True
        for model in self.served:
            model.start()

    def stop(self) -> None:
        """Finish what is queued and end every thread; blocks."""
        for model in self.served:
            model.stop()

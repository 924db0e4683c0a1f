"""Model control: when what is served changes. By files that change (poll), or by requests (explicit); one change at a time.

Models are made in a thread of its own, and published on the event loop. The thread has the priority of all others, though it has
time: what it makes are Python's objects, and who holds the interpreter's lock must not wait for a core; and a session's threads
would inherit its priority for good.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from service.errors import Malformed, ModelNotFound, Overloaded
from service.runtime.broken import BrokenModel
from service.runtime.folder import Found, Version
from service.runtime.loader import Loader, Override
from service.runtime.model import Model
from service.runtime.remote import RemoteError
from service.runtime.repository import Repository
from service.runtime.succession import Succession, Unsettled, succeed
from service.settings import Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WAITING = 16
"""Changes that wait for their turn, each with the files that were sent; bounds memory."""

_SWITCH_S = 5e-4
"""For how long the thread keeps the interpreter's lock from the event loop while it makes a model, where it can choose.

With Python's own 5 ms, 4 clients of `digits` had a p99 of 34 to 46 ms while a ResNet-18 was loaded, with this 19 to 25; 8 before.
"""

_SWEEP_S = (0.05, 0.5, 5.0, 60.0)
"""When to look whether models that left are gone; what hangs in rings goes only so."""

Seen = dict[str, dict[str, Hashable]]
"""Fingerprints of a look, by name and version."""


class Control:
    """What changes the repository once the application runs."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        """Begin; nothing changes yet.

        Args:
            settings: checked.
            repository: filled.
        """
        self._settings = settings
        self._repository = repository
        self._loader: Loader = repository.loader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: Seen | None = None
        self._trouble = ""

    def start(self) -> None:
        """Begin to look, where that is what the settings say; on the event loop."""
        if self._settings.model_control == "poll":
            self._begin(self._poll())

    async def stop(self) -> None:
        """End; a model that is being made is made to its end first, and not published."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def load(self, name: str, override: Override) -> None:
        """Load a model again, or for the first time; what served it goes on until all that is wanted is there.

        Args:
            name: of the model.
            override: what is used in place of what lies in the repository.

        Raises:
            Malformed: 400; it cannot be loaded; what was there before serves.
            ModelNotFound: 404; the repository has no such model. Overloaded: 429; too many wait.
        """
        await self._in_turn(self._load(name, override))

    async def unload(self, name: str) -> None:
        """Stop to serve a model; who has found it before is answered.

        Raises:
            ModelNotFound: 404; there is none. Overloaded: 429; too many wait.
        """
        await self._in_turn(self._unload(name))

    async def names(self) -> Sequence[str]:
        """Give the names of all models in the repository, also of those that are not loaded."""
        return await asyncio.to_thread(self._loader.names)

    async def _poll(self) -> None:
        while True:
            try:
                await self.look()
                self._trouble = ""
            except (OSError, RemoteError) as error:
                if self._trouble != str(error):  # once, and not at every look
                    log.warning("the repository cannot be read; what is loaded serves: %s", error)
                self._trouble = str(error)
            except Exception:  # a fault in one look must not be the last one's
                log.exception("the repository could not be looked through")
            await asyncio.sleep(self._settings.poll_s)

    async def look(self) -> None:
        """Go through all names once; what two looks in a row have seen the same of is acted upon.

        A look is no moment: whoever copies a version in and deletes the one before between the listing of a folder and the look
        into its versions makes a look that sees neither.
        """
        repository = self._repository
        found = await self._work(self._loader.find_all)
        now = _fingerprints(found)
        before, self._seen = self._seen, now
        if before is None:
            return

        def load(each: Found, version: Version, predecessor: Model | None) -> Model:
            if before[each.name][version.number] != version.fingerprint:
                raise Unsettled
            return self._loader.load(each, version, predecessor)

        for name in sorted({*found, *repository.versions, *repository.refused}):
            if now.get(name, {}).keys() == before.get(name, {}).keys():
                await self._settle(name, found.get(name), load)

    async def _settle(
        self, name: str, found: Found | None, load: Callable[[Found, Version, Model | None], Model]
    ) -> None:
        served, refused = self._repository.versions.get(name, {}), self._repository.refused.get(name, {})
        then = await self._work(succeed, found, served, refused, load)
        self._publish(name, found, then)

    def _publish(self, name: str, found: Found | None, then: Succession) -> None:
        self._repository.settle(name, found, then)
        if self._repository.leaving:
            self._begin(self._sweep())

    async def _sweep(self) -> None:
        """Give back what models leave behind, when they are gone."""
        for wait_s in _SWEEP_S:
            await asyncio.sleep(wait_s)
            await self._work(self._loader.sweep)
            if not self._repository.leaving:
                break

    async def _load(self, name: str, override: Override) -> None:
        repository, loader = self._repository, self._loader
        overridden = override != Override()
        served = repository.versions.get(name, {})
        try:
            try:
                found = await self._work(loader.find, name, override)
            except (OSError, RemoteError) as error:
                log.error("the repository cannot be read: %s", error)
                raise Malformed("the repository cannot be read; the server's log says why") from None
            except BrokenModel as error:
                raise Malformed(f"model {name} cannot be loaded: {error.reason}") from None
            if found is None:
                raise ModelNotFound("the repository has no such model")
            then = await self._work(succeed, found, {} if overridden else served, {}, loader.load)
        finally:
            await self._work(loader.discard)
        reasons = [f"version {version or '*'}: {refusal.reason}" for version, refusal in then.refused.items()]
        if then.waiting:
            reasons.append("its files are being written")
        elif not then.models and not reasons:
            reasons.append(f"its policy ({found.policy}) chooses none of its versions ({', '.join(found.versions)})")
        if reasons:
            if served or not override.files:  # else there is no such model, and names that are sent are any number
                self._publish(name, None, Succession(dict(served), then.refused))
            raise Malformed(f"model {name} cannot be loaded: {'; '.join(reasons)}")
        if overridden:
            for model in then.models.values():
                model.fingerprint = None  # what lies in the repository is something else
        self._publish(name, found, then)

    async def _unload(self, name: str) -> None:
        repository = self._repository
        known = name in repository.versions or name in repository.refused
        if not known and await self._work(self._loader.find, name) is None:
            raise ModelNotFound("the repository has no such model")
        self._publish(name, None, Succession())

    async def _in_turn(self, change: Coroutine[Any, Any, None]) -> None:
        """Make one change after the other; who asked for it may go away, it is made all the same."""
        if self._waiting >= _MAX_WAITING:
            change.close()
            raise Overloaded(
                f"expected at most {_MAX_WAITING} changes of the repository that wait, there are so many",
                retry_after_s=1,
            )
        self._waiting += 1

        async def course() -> None:
            try:
                async with self._turn:
                    await change
            finally:
                self._waiting -= 1

        await asyncio.shield(self._begin(course()))

    def _begin(self, course: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(course)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked has it; if he went away, it is in the log

    async def _work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call something in the loader's thread."""

        def work() -> T:
            before = sys.getswitchinterval()
            sys.setswitchinterval(_SWITCH_S)
            try:
                return function(*args, **kwargs)
            finally:
                sys.setswitchinterval(before)

        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _fingerprints(found: Mapping[str, Found]) -> Seen:
    return {
        name: {version.number: version.fingerprint for version in each.versions.values()}
        for name, each in found.items()
    }

"""What serves a name next: which versions by the policy, of those that are there and can be loaded. Nothing is published here.

Three rules. A version whose files still change is waited for. One that cannot be loaded counts as not there until its files change:
by `latest` the next lower one serves. And nobody leaves before his successor is there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from service.runtime.broken import BrokenModel
from service.runtime.folder import Found, Version
from service.runtime.model import Model

WHOLE = ""
"""In place of a version: what is wrong concerns all of a name."""


class Refusal(NamedTuple):
    """A version that could not be loaded.

    Attributes:
        fingerprint: of its files then; others may be better.
        reason: without the host's paths.
    """

    fingerprint: Hashable
    reason: str


class Unsettled(Exception):
    """A version's files are being written."""


@dataclass
class Succession:
    """What is to serve.

    Attributes:
        models: by version.
        refused: by version, what cannot be loaded.
        waiting: whether a version is waited for.
    """

    models: dict[str, Model] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    waiting: bool = False


def succeed(
    found: Found | None,
    served: Mapping[str, Model],
    refused: Mapping[str, Refusal],
    load: Callable[[Found, Version, Model | None], Model],
) -> Succession:
    """Load what is to serve a name and does not yet, the highest version first; blocks.

    Args:
        found: as it lies there now; None: there is no such folder any more.
        served: by version, what serves.
        refused: by version, what could not be loaded before; the same files are not tried again.
        load: makes a model of a version, to follow another. Raises BrokenModel, or Unsettled where it is to be waited for.
    """
    before = served[max(served, key=int)] if served else None
    if found is None:
        return Succession()
    if found.problem is not None:
        return Succession(dict(served), {WHOLE: Refusal(found.fingerprint, found.problem.reason)})
    then = Succession(refused=_still_valid(found, refused))
    pending: set[str] = set()
    while True:
        loadable = [number for number in found.versions if number not in then.refused or number in served]
        wanted = found.policy.choose(loadable)
        missing = [number for number in wanted if number not in then.models and number not in pending]
        if not missing:
            break
        number = missing[-1]
        version, old = found.versions[number], served.get(number)
        if old is not None and (old.fingerprint == version.fingerprint or number in then.refused):
            then.models[number] = old
            continue
        try:
            then.models[number] = load(found, version, before)
        except Unsettled:
            pending.add(number)
        except BrokenModel as error:
            then.refused[number] = Refusal(version.fingerprint, error.reason)
    then.models = {number: model for number, model in then.models.items() if number in wanted}
    then.waiting = bool(pending)
    if pending or (then.refused and not then.models):
        then.models = {**served, **then.models}
    return then


def _still_valid(found: Found, refused: Mapping[str, Refusal]) -> dict[str, Refusal]:
    return {
        number: refusal
        for number, refusal in refused.items()
        if number in found.versions and found.versions[number].fingerprint == refusal.fingerprint
    }

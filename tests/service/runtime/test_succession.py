"""Who serves next: by the policy, of what is there and can be loaded; the models are stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.runtime.broken import BrokenModel
from service.runtime.folder import Found, Version
from service.runtime.policy import VersionPolicy
from service.runtime.succession import WHOLE, Refusal, Succession, Unsettled, succeed


def there(policy: str = "latest", problem: BrokenModel | None = None, **versions: str) -> Found:
    """What lies there: `v1="a"` is version 1 with files that are `a`."""
    listed = {
        name[1:]: Version(name[1:], Path(name[1:], "model.onnx"), fingerprint) for name, fingerprint in versions.items()
    }
    parsed = VersionPolicy.parse(policy)
    return Found("m", listed, parsed, parsed.choose(listed), problem=problem, fingerprint="pbtxt")


class Shelf:
    """Loads all but those whose files are `broken` or `open`, and remembers what it was asked to."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def load(self, found: Found, version: Version, before: Any) -> Any:
        self.asked.append(version.number)
        if version.fingerprint == "open":
            raise Unsettled
        if str(version.fingerprint).startswith("broken"):
            raise BrokenModel("it is broken", version.path)
        return SimpleNamespace(version=version.number, fingerprint=version.fingerprint)

    def after(self, found: Found | None, before: Succession | None = None) -> Succession:
        self.asked.clear()
        before = before or Succession()
        return succeed(found, before.models, before.refused, self.load)


def serving(then: Succession) -> Mapping[str, object]:
    return {number: model.fingerprint for number, model in sorted(then.models.items())}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latest", ["10"]), ("latest:2", ["10", "9"]), ("all", ["10", "9", "2"]), ("specific:2,9,77", ["9", "2"])],
)
def test_policy_chooses_and_the_highest_is_loaded_first(policy: str, expected: list[str]) -> None:
    shelf = Shelf()
    then = shelf.after(there(policy, v2="a", v9="b", v10="c"))
    assert shelf.asked == expected
    assert set(then.models) == set(expected)
    assert not shelf.after(there(policy, v2="a", v9="b", v10="c"), then).waiting
    assert shelf.asked == []  # nothing has changed


def test_new_version_takes_over_and_the_old_one_goes() -> None:
    shelf = Shelf()
    first = shelf.after(there(v1="a"))
    assert serving(shelf.after(there(v1="a", v2="b"), first)) == {"2": "b"}
    assert serving(shelf.after(there(v2="b"), first)) == {"2": "b"}  # the old one was deleted at once


def test_changed_files_of_the_same_version_are_loaded_again() -> None:
    shelf = Shelf()
    first = shelf.after(there("all", v1="a", v2="a"))
    then = shelf.after(there("all", v1="a", v2="b"), first)
    assert shelf.asked == ["2"]
    assert serving(then) == {"1": "a", "2": "b"}
    assert then.models["1"] is first.models["1"]


def test_broken_version_leaves_the_old_one_and_is_tried_again_when_its_files_change() -> None:
    shelf = Shelf()
    first = shelf.after(there(v1="a"))
    then = shelf.after(there(v1="a", v2="broken"), first)
    assert serving(then) == {"1": "a"}
    assert then.refused == {"2": Refusal("broken", "it is broken")}
    again = shelf.after(there(v1="a", v2="broken"), then)
    assert shelf.asked == []
    assert again.refused == then.refused
    assert serving(shelf.after(there(v2="broken"), then)) == {"1": "a"}  # even if its files are gone
    mended = shelf.after(there(v1="a", v2="b"), again)
    assert serving(mended) == {"2": "b"}
    assert not mended.refused


def test_broken_files_of_a_version_that_serves_leave_it_as_it_was_loaded() -> None:
    shelf = Shelf()
    first = shelf.after(there(v1="a", v2="a"))
    then = shelf.after(there(v1="a", v2="broken"), first)
    assert serving(then) == {"2": "a"}
    assert set(then.refused) == {"2"}
    assert shelf.asked == ["2"]
    assert serving(shelf.after(there(v1="a", v2="broken"), then)) == {"2": "a"}
    assert shelf.asked == []


def test_at_the_start_the_next_lower_version_serves_for_a_broken_one() -> None:
    shelf = Shelf()
    then = shelf.after(there("latest:2", v1="a", v2="b", v3="broken", v4="d"))
    assert serving(then) == {"2": "b", "4": "d"}
    assert shelf.asked == ["4", "3", "2"]


def test_specific_versions_are_not_replaced_by_others() -> None:
    then = Shelf().after(there("specific:2", v1="a", v2="broken"))
    assert serving(then) == {}
    assert set(then.refused) == {"2"}


def test_version_that_is_being_written_is_waited_for() -> None:
    shelf = Shelf()
    first = shelf.after(there(v2="b"))
    then = shelf.after(there(v1="a", v3="open"), first)
    assert then.waiting
    assert serving(then) == {"2": "b"}  # though it was deleted, and not the older one that is there
    assert shelf.asked == ["3"]
    done = shelf.after(there(v1="a", v3="c"), then)
    assert serving(done) == {"3": "c"}
    assert not done.waiting


def test_what_was_removed_is_not_served_and_the_next_lower_one_takes_over() -> None:
    shelf = Shelf()
    first = shelf.after(there(v1="a", v2="b"))
    then = shelf.after(there(v1="a"), first)
    assert serving(then) == {"1": "a"}
    assert serving(shelf.after(there(), then)) == {}
    assert serving(shelf.after(None, then)) == {}


def test_configuration_that_cannot_be_read_changes_nothing() -> None:
    shelf = Shelf()
    first = shelf.after(there(v1="a"))
    then = shelf.after(there(v1="x", v2="b", problem=BrokenModel("config.pbtxt:1:1: no")), first)
    assert serving(then) == {"1": "a"}
    assert then.refused == {WHOLE: Refusal("pbtxt", "config.pbtxt:1:1: no")}
    assert shelf.asked == []

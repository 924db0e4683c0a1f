"""Version policies: which of the versions in a model's folder are served. By Triton's model_config.proto, ModelVersionPolicy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

LARGEST_VERSION = 2**63 - 1
"""Versions are int64 in Triton's protocol."""

_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_EXPECTED = "expected latest, latest:<count>, all or specific:<version>,<version>, …"


def is_version(name: str) -> bool:
    """Whether a folder's name is a version: a number from 1 on, in ASCII, without leading zeros, as with Triton."""
    return _NUMBER.fullmatch(name) is not None and int(name) <= LARGEST_VERSION


@dataclass(frozen=True)
class VersionPolicy:
    """Which versions are served.

    Attributes:
        kind: `latest`, `all` or `specific`.
        count: how many, from the highest down, where it is `latest`.
        numbers: which, ascending, where it is `specific`.
    """

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    numbers: tuple[int, ...] = ()

    @classmethod
    def latest(cls, count: int = 1) -> VersionPolicy:
        """Serve the highest versions.

        Raises:
            ValueError: count < 1.
        """
        if count < 1:
            raise ValueError(f"latest: expected a count of versions from 1 on, got {count}")
        return cls("latest", count)

    @classmethod
    def all(cls) -> VersionPolicy:
        """Serve every version."""
        return cls("all")

    @classmethod
    def specific(cls, numbers: Iterable[int]) -> VersionPolicy:
        """Serve some versions.

        Raises:
            ValueError: there is none, or one below 1.
        """
        chosen = tuple(sorted(set(numbers)))
        if not chosen or not 1 <= chosen[0] <= chosen[-1] <= LARGEST_VERSION:
            raise ValueError(f"specific: expected versions from 1 to {LARGEST_VERSION}, got {list(chosen)}")
        return cls("specific", numbers=chosen)

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """Read a setting: `latest`, `latest:2`, `all`, `specific:1,3`.

        Raises:
            ValueError: it is none of these.
        """
        kind, colon, rest = text.partition(":")
        if text in {"latest", "all"}:
            return cls(kind)  # type: ignore[arg-type]
        numbers = [part.strip() for part in rest.split(",")]
        if not colon or not all(is_version(number) for number in numbers):
            raise ValueError(f"{_EXPECTED}; got {text[:64]!r}")
        if kind == "latest" and len(numbers) == 1:
            return cls.latest(int(numbers[0]))
        if kind == "specific":
            return cls.specific(int(number) for number in numbers)
        raise ValueError(f"{_EXPECTED}; got {text[:64]!r}")

    def __str__(self) -> str:
        """As `parse` reads it."""
        if self.kind == "latest":
            return f"latest:{self.count}"
        return "all" if self.kind == "all" else f"specific:{','.join(map(str, self.numbers))}"

    def choose(self, versions: Iterable[str]) -> tuple[str, ...]:
        """Give those that are served, ascending by number."""
        ascending = sorted(versions, key=int)
        if self.kind == "latest":
            return tuple(ascending[-self.count :])
        return tuple(version for version in ascending if self.kind == "all" or int(version) in self.numbers)

    def document(self) -> dict[str, Any]:
        """Give Triton's JSON of it, as `/config` shows it."""
        if self.kind == "latest":
            return {"latest": {"num_versions": self.count}}
        return {"all": {}} if self.kind == "all" else {"specific": {"versions": list(self.numbers)}}

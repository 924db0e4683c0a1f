"""What lies in the folder of a model repository: <name>/<version>/model.onnx. Who serves what of it, and when, is not known here.

A fingerprint changes when a file is replaced, added, removed or still being written: two looks that see the same have seen a folder
that nobody writes to, as far as sizes, times of change and inodes tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from service.runtime.broken import BrokenModel
from service.runtime.configuration import Configuration, read_configuration
from service.runtime.policy import VersionPolicy, is_version

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""Names of models. Folders with other names, `.` and `..` are no models."""

_MAX_FILES = 10_000
"""Files of a version that are looked at; no model has as many."""


class Version(NamedTuple):
    """One version of a model, as it lies there.

    Attributes:
        number: the folder's name.
        path: of its ONNX file.
        fingerprint: equal to that of another look if no file that matters to it has changed in between.
    """

    number: str
    path: Path
    fingerprint: Hashable


@dataclass(frozen=True)
class Found:
    """One model, as it lies there.

    Attributes:
        name: the folder's.
        versions: all that there are, by their numbers, ascending.
        policy: that holds: of its config.pbtxt, else of the settings.
        wanted: versions that the policy chooses, ascending; none where there is a problem.
        configuration: what config.pbtxt says; None where there is none.
        problem: why config.pbtxt cannot be gone by. What it would choose is not known then, so that no version should go or come.
        fingerprint: of config.pbtxt and the files of labels by themselves.
        ignored: folders that could be taken for versions and are none, with the reason.
    """

    name: str
    versions: Mapping[str, Version]
    policy: VersionPolicy
    wanted: tuple[str, ...]
    configuration: Configuration | None = None
    problem: BrokenModel | None = None
    fingerprint: Hashable = ()
    ignored: Mapping[str, str] = field(default_factory=dict)


def find_models(folder: Path, policy: VersionPolicy) -> Mapping[str, Found]:
    """Look through a repository.

    Args:
        folder: of the repository.
        policy: of models that have none of their own.

    Returns:
        Models by name, in the order of their names; those without a version and without a config.pbtxt are none.

    Raises:
        OSError: the folder cannot be read.
    """
    names = sorted(entry.name for entry in os.scandir(folder) if is_name(entry.name))
    found = (find_model(folder, name, policy) for name in names)
    return {model.name: model for model in found if model is not None}


def is_name(text: str) -> bool:
    """Whether a text can be a model's name: it never leads out of the repository."""
    return NAME.fullmatch(text) is not None and text.strip(".") != ""


def find_model(
    folder: Path, name: str, policy: VersionPolicy, configuration: Configuration | None = None
) -> Found | None:
    """Look for one model.

    Args:
        folder: of the repository.
        name: of the model; any text.
        policy: unless it has one of its own.
        configuration: to go by in place of its config.pbtxt.

    Returns:
        None where the repository has no such model.
    """
    own = folder / name
    if not is_name(name) or not own.is_dir():
        return None
    problem: BrokenModel | None = None
    if configuration is None:
        try:
            configuration = read_configuration(own)
        except BrokenModel as error:
            problem = error
    versions, ignored = _versions(own, configuration)
    if not versions and configuration is None and problem is None:
        return None
    if configuration is not None and configuration.version_policy is not None:
        policy = configuration.version_policy
    wanted = () if problem else policy.choose(versions)
    shared = _shared(own, configuration)
    return Found(name, versions, policy, wanted, configuration, problem, shared, ignored)


def _versions(own: Path, configuration: Configuration | None) -> tuple[dict[str, Version], dict[str, str]]:
    """List versions, ascending, and what is none."""
    file_name = configuration.file_name if configuration else "model.onnx"
    shared = _shared(own, configuration)
    versions: dict[str, Version] = {}
    ignored: dict[str, str] = {}
    for name in sorted(_names(own), key=lambda name: (len(name), name)):
        version = own / name
        if not name.isdecimal() or not version.is_dir():
            continue
        path = version / file_name
        if path.is_dir():
            path = path / "model.onnx"  # a model of several files, in a folder of their own
        if not is_version(name):
            ignored[name] = "is no version: expected a number from 1 on, without leading zeros"
        elif os.path.lexists(path):  # a link to nothing is refused when it is loaded
            versions[name] = Version(name, path, (fingerprint(version), shared))
        else:
            ignored[name] = f"has no {file_name}"
    return versions, ignored


def _shared(own: Path, configuration: Configuration | None) -> Hashable:
    """Take the fingerprint of what versions have in common."""
    files = ["config.pbtxt"]
    if configuration is not None:
        files += [tensor.label_filename for tensor in configuration.outputs if tensor.label_filename]
    return tuple(_state(own / file, file) for file in sorted(set(files)))


def fingerprint(folder: Path) -> Hashable:
    """Take the fingerprint of a folder: names, sizes, times of change and inodes of all files in it, also in folders below.

    Raises:
        Nothing: what goes away while it is looked at is not there.
    """
    files = []
    for path in _walk(folder):
        files.append(_state(path, str(path.relative_to(folder))))
        if len(files) == _MAX_FILES:
            break
    return tuple(sorted(files))


def _walk(folder: Path) -> Iterator[Path]:
    """Go through all files; folders behind links are files here."""
    for name in _names(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return []


def _state(path: Path, name: str) -> tuple[str, int, int, int]:
    """Say what a file is like now; of a link, what it leads to."""
    for stat in (os.stat, os.lstat):
        try:
            state = stat(path)
        except OSError:
            continue
        return name, state.st_size, state.st_mtime_ns, state.st_ino
    return name, -1, -1, -1

"""A local copy of a model repository that lies in an object store or behind any other URL that fsspec knows.

What is new or changed is brought a version at a time: copied beside, then put in place whole. What fails stays as it was.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from service.runtime.folder import is_name
from service.runtime.scratch import Scratch

log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")
_USER = re.compile(r"//[^/@]*@")

_MAX_DEPTH = 8
_MAX_FILES = 100_000
"""A listing that goes deeper or has more is no model repository."""

_CONTENT_KEYS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c", "generation")
_TIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified")
"""How file systems call what changes with a file's content, and with its writing: S3's, Google's, Azure's, local ones."""


class RemoteError(Exception):
    """A repository behind a URL cannot be read, or not all of it; the message says why, without user and password."""


class _File(NamedTuple):
    """A file as listed: its name in the store, its size in bytes (None where the store does not say) and what changes with it."""

    remote: str
    size: int | None
    stamp: Hashable


_Unit = tuple[str, str]
"""What is put in place at once: (name, version's folder), or (name, file beside the versions)."""


def is_url(text: str) -> bool:
    """Whether a setting is a URL and no folder."""
    return _SCHEME.match(text) is not None


class Mirror:
    """A local copy. One thread calls `refresh`.

    Attributes:
        folder: the copy, laid out as the repository is.
    """

    def __init__(self, url: str) -> None:
        """Find the file system; nothing is copied yet.

        Args:
            url: such as `s3://bucket/models`; settings and credentials are those of the store's own package.

        Raises:
            RemoteError: fsspec or the store's package is missing, or the URL is none that it knows.
        """
        self._shown = _USER.sub("//", url)
        try:
            from fsspec.core import url_to_fs

            self._store, path = url_to_fs(url)
        except ImportError as error:
            raise RemoteError(
                f"{self._shown}: expected fsspec and the store's package (s3fs, gcsfs, adlfs), install poolserve[remote] and that "
                f"one: {error}"
            ) from error
        except Exception as error:  # each file system has its own
            raise RemoteError(f"{self._shown}: expected a URL that fsspec knows: {error}") from error
        self._path = str(path).rstrip("/") or str(path)[:1]  # of a store's root
        self._scratch = Scratch()
        self.folder = self._scratch.folder / "models"
        self._staging = self._scratch.folder / "staging"
        for folder in (self.folder, self._staging):
            folder.mkdir()
        self._have: dict[_Unit, Mapping[str, _File]] = {}

    def close(self) -> None:
        """Remove the copy."""
        self._scratch.close()

    def refresh(self) -> None:
        """Bring what is new or changed, remove what is gone; blocks, for as long as the network takes.

        Raises:
            RemoteError: the store cannot be listed, which leaves the copy as it is; or files could not be copied, which
                leaves their versions as they are. The next call tries again.
        """
        listed = self._list()
        problems = []
        for unit, files in listed.items():
            if self._have.get(unit) != files:
                try:
                    self._bring(unit, files)
                except Exception as error:  # each file system has its own
                    problems.append(f"{'/'.join(unit)}: {error}")
                    log.warning("%s: %s could not be copied", self._shown, "/".join(unit), exc_info=True)
        for unit in self._have.keys() - listed.keys():
            self._remove(unit)
        if problems:
            raise RemoteError(f"{self._shown}: could not be copied: {'; '.join(problems)[:1000]}")

    def _list(self) -> dict[_Unit, dict[str, _File]]:
        """List what there is: units, and in each the files by their path below it (empty: the unit is a file)."""
        self._store.invalidate_cache()
        found: dict[_Unit, dict[str, _File]] = defaultdict(dict)
        try:
            for count, (parts, file) in enumerate(self._walk(self._path, ())):
                if count >= _MAX_FILES:
                    raise RemoteError(
                        f"{self._shown}: expected a model repository, it has more than {_MAX_FILES} files"
                    )
                if len(parts) > 1 and is_name(parts[0]):
                    found[parts[0], parts[1]]["/".join(parts[2:])] = file
        except RemoteError:
            raise
        except Exception as error:  # each file system has its own
            raise RemoteError(f"{self._shown}: cannot be listed: {type(error).__name__}: {error}") from error
        return found

    def _walk(self, folder: str, parts: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _File]]:
        """Go through a folder. `ls` says what is wrong, where fsspec's `find` leaves a folder out that it could not read."""
        for entry in self._store.ls(folder, detail=True):
            listed = str(entry["name"]).rstrip("/")
            name = listed.rpartition("/")[2]
            if listed == folder.rstrip("/") or (not parts and not is_name(name)):
                continue  # the folder's own marker; what is no model's name
            if not _is_plain(name) or entry.get("islink"):
                log.warning(
                    "%s: %r is passed over: expected a file or folder with a plain name", self._shown, listed[:256]
                )
            elif entry["type"] == "directory":
                if len(parts) >= _MAX_DEPTH:
                    raise RemoteError(f"{self._shown}: expected a model repository, {listed[:256]!r} lies too deep")
                yield from self._walk(listed, (*parts, name))
            elif entry["type"] == "file":
                yield (*parts, name), _File(listed, entry.get("size"), _stamp(entry))

    def _bring(self, unit: _Unit, files: Mapping[str, _File]) -> None:
        """Copy a unit beside and put it in place; files that have not changed are taken over."""
        have, place = self._have.get(unit, {}), self.folder / unit[0] / unit[1]
        staged = Path(tempfile.mkdtemp(dir=self._staging)) / "unit"
        try:
            for below, file in files.items():
                target = staged / below
                target.parent.mkdir(parents=True, exist_ok=True)
                if have.get(below) == file and (place / below).is_file():
                    os.link(place / below, target)
                    continue
                self._store.get_file(file.remote, str(target))
                size = target.stat().st_size
                if file.size is not None and size != file.size:
                    raise RemoteError(
                        f"{below or unit[1]}: expected {file.size} bytes, got {size}: it is being written"
                    )
            self._remove(unit)
            place.parent.mkdir(exist_ok=True)
            staged.rename(place)
            self._have[unit] = dict(files)
        finally:
            shutil.rmtree(staged.parent, ignore_errors=True)

    def _remove(self, unit: _Unit) -> None:
        """Take a unit away, out of sight first; and the model's folder, if it was the last."""
        place = self.folder / unit[0] / unit[1]
        if unit in self._have:
            gone = Path(tempfile.mkdtemp(dir=self._staging))
            place.rename(gone / "unit")
            shutil.rmtree(gone, ignore_errors=True)
            del self._have[unit]
            if not any(place.parent.iterdir()):
                place.parent.rmdir()


def _is_plain(name: str) -> bool:
    """Whether a listed name is that of a file here: no way out of the copy."""
    return (
        name not in {"", ".", ".."} and len(name.encode(errors="replace")) <= 255 and not set(name) & {"/", "\\", "\0"}
    )


def _stamp(entry: Mapping[str, Any]) -> Hashable:
    """Give what changes with a file: its size and its content's tag, else the time it was written, else what there is."""
    for keys in (_CONTENT_KEYS, _TIME_KEYS, ("created",)):
        known = tuple(str(entry[key]) for key in keys if entry.get(key) is not None)
        if known:
            return entry.get("size"), known
    return (entry.get("size"),)

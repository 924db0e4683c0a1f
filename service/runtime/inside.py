"""Files that must lie in their model's folder: whoever can write there must not be able to have others read through us.

A link is followed as long as it stays in the folder. A hard link to a file elsewhere cannot be told from a file; making one takes
the right to write where the folder lies, on the same file system.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from service.runtime.broken import BrokenModel


def find_inside(folder: Path, path: Path) -> Path:
    """Follow links to a file and check where that is; nothing is opened.

    Args:
        folder: that it must not leave; it may be a link itself, it is whoever runs the service who has made that.
        path: of the file, under the folder.

    Returns:
        The file, all links followed.

    Raises:
        BrokenModel: it leaves the folder, is not there, or is no regular file.
    """
    name = path.relative_to(folder).as_posix()[:256]
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError
        said = error.strerror if isinstance(error, OSError) and error.strerror else "its links go in a circle"
        what = "a link" if os.path.islink(path) else "a file"  # noqa: PTH114 - it takes names that are too long
        raise BrokenModel(f"{name}: expected a file, got {what} that cannot be read: {said}", path) from error
    if not real.is_relative_to(folder.resolve()):
        raise BrokenModel(f"{name}: expected a file in its model's folder, got a link that leaves it", path)
    if not stat.S_ISREG(mode):
        raise BrokenModel(f"{name}: expected a regular file, got {_kind(mode)}", path)
    return real


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_inside(folder: Path, name: str, max_bytes: int) -> bytes | None:
    """Read a small file of a model's folder.

    Args:
        folder: of the model.
        name: of the file, relative to it.
        max_bytes: that it may have.

    Returns:
        None where there is nothing of this name.

    Raises:
        BrokenModel: as `find_inside`, or it is larger, or cannot be read.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    real = find_inside(folder, path)
    try:
        with real.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BrokenModel(f"{name}: cannot be read: {error.strerror}", path) from error
    if len(data) > max_bytes:
        raise BrokenModel(f"{name}: expected at most {max_bytes} bytes, it has more", path)
    return data

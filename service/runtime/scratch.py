"""A private folder for files that go with this process, however it ends: what a killed one left behind the next one removes.

Who lives is told by a lock on a file in the folder, which the kernel gives up for whoever dies. (A container that is killed for its
memory and started again has the /tmp of before.)
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
import weakref
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "poolserve-"
_LOCK = "in-use"


class Scratch:
    """The folder.

    Attributes:
        folder: empty at first; nobody else may read it.
    """

    def __init__(self) -> None:
        """Make it, where TMPDIR says.

        Raises:
            OSError: there is no such place, or no room.
        """
        _clear(Path(tempfile.gettempdir()))
        own = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.folder = own / "files"
        self.folder.mkdir()
        # It has its name when it is locked: whoever sees an unlocked one sees one that nobody has any more.
        unnamed = own / f"{_LOCK}-soon"
        lock = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        unnamed.rename(own / _LOCK)
        self._end = weakref.finalize(self, _remove, own, lock)

    def close(self) -> None:
        """Remove it; again does nothing. So it is removed, too, when nobody holds this object, and when the process ends."""
        self._end()


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _clear(place: Path) -> None:
    """Remove folders of this user's processes that live no more."""
    for folder in place.glob(f"{_PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # it is being made, or removed, or is none of these
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        log.info("%s is removed: the process that made it was killed", folder)
        _remove(folder, lock)

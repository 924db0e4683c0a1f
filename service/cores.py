"""Cores: how many this process may keep busy, by its affinity and by its container's quota of CPU time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath


@cache  # every session asks; the files take 0.2 ms
def available_cores(root: Path = Path("/")) -> int:
    """Count them: those it may run on, or those that its quota pays for if they are fewer; at least 1. As when first asked.

    With two cores' time on a machine of 64, 64 threads spend their share in the first milliseconds of each period of 100 and
    then all stand still. A part of a core counts as one, as it does for the Java machine and for Go
    (go.dev/doc/go1.25, "Container-aware GOMAXPROCS").

    Args:
        root: where `proc` and `sys` are.
    """
    quota = min(_quotas(root), default=math.inf)
    allowed = len(os.sched_getaffinity(0))
    return allowed if quota >= allowed else max(1, math.ceil(quota))


def _quotas(root: Path) -> Iterator[float]:
    """Give the limits in cores, of this process's control group and of those above it that it can see.

    The kernel's Documentation/admin-guide/cgroup-v2.rst ("cpu.max") and, of version 1, Documentation/scheduler/sched-bwc.rst.
    """
    for mount, group, unified in _groups(root):
        for folder in (mount / group, *(mount / group).parents):
            if not folder.is_relative_to(mount):
                break
            if unified:
                words = _read(folder / "cpu.max").split()
            else:
                words = [*_read(folder / "cpu.cfs_quota_us").split(), *_read(folder / "cpu.cfs_period_us").split()]
            if len(words) == 2 and words[0] not in ("max", "-1"):
                yield int(words[0]) / int(words[1])


def _groups(root: Path) -> Iterator[tuple[Path, PurePosixPath, bool]]:
    """Give where hierarchies that limit CPU time are mounted, this process's place below, and whether it is version 2."""
    places = {}  # by controllers: "" is version 2's
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        places.update(dict.fromkeys(controllers.split(","), PurePosixPath(path)))
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mounted, _, kind = line.partition(" - ")
        system, _, options = kind.split(" ", 2)
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(system)
        if controller in places and (controller == "" or controller in options.split(",")):
            top, mount = mounted.split(" ")[3:5]
            place = places[controller]
            # In a container the hierarchy is often mounted from the container's own group on.
            group = place.relative_to(top) if place.is_relative_to(top) else PurePosixPath()
            yield root / mount.lstrip("/"), group, controller == ""


def _read(path: Path) -> str:
    """Give a file's text; empty where there is none, or none for us: then it limits nothing that we could know of."""
    try:
        return path.read_text()
    except OSError:
        return ""

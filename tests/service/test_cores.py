"""The number of cores: the kernel's files as containers show them, and a real control group where one can be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.cores import available_cores

V2 = "29 23 0:26 {top} /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"
V1 = "32 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct ro,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "23 28 0:21 / /proc rw,nosuid - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
)


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Lay out the files of a machine."""
    texts = {"proc/self/cgroup": groups, "proc/self/mountinfo": OTHERS + mounts}
    for name, text in (texts | {f"sys/fs/cgroup/{name}": text for name, text in files.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("5000 10000", 1), ("max 100000", 16)],
)
def test_a_container_s_quota(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(top="/"), {"cpu.max": quota + "\n"})
    assert available_cores(root) == cores


def test_more_than_the_cores_that_it_may_run_on(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(top="/"), {"cpu.max": "6400000 100000\n"})
    assert available_cores(root) == 16


def test_the_tightest_group_above_it_counts(tmp_path: Path) -> None:
    files = {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "700000 100000\n", "c/cpu.max": "100000 100000\n"}
    root = machine(tmp_path, "0::/a/b\n", V2.format(top="/"), files)
    assert available_cores(root) == 3


@pytest.mark.parametrize(("quota", "cores"), [("250000", 3), ("-1", 16)])
def test_version_1(tmp_path: Path, quota: str, cores: int) -> None:
    groups = "9:name=systemd:/docker/7f\n8:pids:/docker/7f\n4:cpu,cpuacct:/docker/7f\n0::/docker/7f\n"
    files = {"cpu,cpuacct/docker/7f/cpu.cfs_quota_us": quota, "cpu,cpuacct/docker/7f/cpu.cfs_period_us": "100000"}
    root = machine(tmp_path, groups, V1.format(top="/"), files)
    assert available_cores(root) == cores


def test_version_1_where_the_container_s_own_group_is_mounted(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    root = machine(tmp_path, "4:cpu,cpuacct:/docker/7f\n", V1.format(top="/docker/7f"), files)
    assert available_cores(root) == 4


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 16

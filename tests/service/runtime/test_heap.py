"""What trimming gives back, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_CODE = """
from pathlib import Path
from service.runtime.heap import trim

def resident():
    return 1024 * next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS"))

blocks = [bytes([i % 255 + 1]) * 100_000 for i in range(1000)]  # of the heap: below glibc's threshold for mappings
top = blocks.pop()
held = resident()
blocks.clear()
kept = resident()
trim()
print(held - kept, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_free_pages_under_one_that_is_used_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    alone, trimmed = map(int, done.stdout.split())
    assert alone < 20e6  # the last block is at the top: glibc gives nothing back by itself
    assert trimmed > 80e6


_GROWING = """
import resource, sys
from service.runtime import heap

if sys.argv[1] == "keep":
    heap.keep()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(1, 31):
    b"1" * (size * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
before = int(open("/proc/self/statm").read().split()[1])
b"1" * 2**27
print(int(open("/proc/self/statm").read().split()[1]) - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_pages_that_are_needed_again_stay_and_those_of_large_blocks_go() -> None:
    faults = {}
    for how in ("keep", "leave"):
        done = subprocess.run([sys.executable, "-c", _GROWING, how], capture_output=True, text=True, check=True)
        faults[how], left = map(int, done.stdout.split())
        assert left < 1000  # pages; the block had 32 768
    assert faults["keep"] < 10_000  # the largest block's, once: 7 680
    assert faults["leave"] > 100_000  # every block's: 119 040

"""What trimming gives back, in a process of its own."""

from __future__ import annotations

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

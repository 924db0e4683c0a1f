"""`python -m benchmarks.memory`: a thousand tensors of 103 MB, one after the other, and what the service holds afterwards."""

from __future__ import annotations

import argparse
import http.client
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks import process, results
from benchmarks.load import HOST
from benchmarks.models import SHIPPED
from benchmarks.pooling import npy

SHAPE = (64, 256, 56, 56)  # float16: 102.8 MB
FIRST = 10
"""Requests after which the service has what it keeps: its buffers, its graph."""


def resident_mb(pid: int) -> float:
    """Resident size of a process in 10⁶ bytes, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024 / 1e6


def measure(requests: int, progress: Progress) -> dict[str, Any]:
    """Send them over one connection; the first answer is checked, of the others the length."""
    tensor = np.random.default_rng(0).standard_normal(SHAPE, np.float32).astype(np.float16)  # (64,256,56,56)
    pooled = tensor.reshape(*SHAPE[:2], 28, 2, 28, 2).max((3, 5))
    body, expected = npy(tensor), npy(pooled)
    answer = bytearray(len(expected))
    task = progress.add_task("memory", total=requests)
    sizes: list[float] = []
    with process.service(SHIPPED) as running:
        started = time.monotonic()
        connection = http.client.HTTPConnection(HOST, running.port, timeout=120)
        for number in range(requests):
            connection.request("POST", "/v1/pool?op=max&kernel=2", body, {"Content-Type": "application/x-npy"})
            response = connection.getresponse()
            length = int(response.headers["Content-Length"])
            if response.status != 200 or length != len(expected):
                raise RuntimeError(f"expected 200 and {len(expected)} bytes, got {response.status} and {length}")
            view = memoryview(answer)
            while view:
                view = view[response.readinto(view) :]
            response.read()
            if not number and bytes(answer) != expected:
                raise RuntimeError("the answer is wrong")
            sizes.append(resident_mb(running.pid))
            progress.advance(task)
        connection.close()
        seconds = time.monotonic() - started
    return {
        "requests": requests,
        "body_mb": len(body) / 1e6,
        "per_request_ms": 1e3 * seconds / requests,
        "after_first_mb": sizes[FIRST - 1],
        "after_all_mb": sizes[-1],
        "largest_mb": max(sizes),
        "growth": sizes[-1] / sizes[FIRST - 1] - 1,
        "every_tenth_of_the_way_mb": sizes[:: max(1, requests // 10)],
    }


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    row = (
        "(64,256,56,56) float16 as .npy, max 2×2",
        f"{found['requests']}",
        f"{found['body_mb']:.1f}",
        f"{found['per_request_ms']:.0f}",
        f"{found['after_first_mb']:.0f}",
        f"{found['after_all_mb']:.0f}",
        f"{found['largest_mb']:.0f}",
    )
    columns = ("", "requests", "MB each", "ms each", f"resident MB after {FIRST}", "after all", "largest seen")
    goals = [
        results.Goal(f"resident size after all / after {FIRST}", 1 + found["growth"], "<=", 1.1),
        results.Goal(f"resident size after all / after {FIRST}", 1 + found["growth"], ">=", 0.9),
    ]
    return [results.Grid("Resident size between requests", columns, [row]), results.goals_grid(goals)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.memory",
        description="Send large tensors for minutes and watch the service's resident size.",
    )
    parser.add_argument("--requests", type=int, default=1000, help=f"more than {FIRST} [1000]")
    flags = parser.parse_args()
    if flags.requests <= FIRST:
        parser.error(f"--requests: expected more than {FIRST}, got {flags.requests}")
    console = results.terminal()
    with Progress(console=console, transient=True) as progress:
        found = measure(flags.requests, progress)
    results.finish("memory", found, grids(found), console, save=flags.requests >= 100)


if __name__ == "__main__":
    main()

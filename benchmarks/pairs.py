"""Two servers measured in turn, a moment apart, so that the drift of a shared machine cancels in their ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.alone import visit
from benchmarks.statistics import Pace, median, pace
from benchmarks.volley import fire

CROWD = 32
"""Clients of a crowd."""

COLUMNS = ("ratio", "min–max", "p50 ms", "p99 ms")
"""Of a row of `cells`, after the two rates."""

Measurement = Callable[[], tuple[Pace, float]]
"""Measures once: the pace, and the part of the time for which the clients' process was busy."""


def crowd(port: int, message: bytes, seconds: float) -> tuple[Pace, float]:
    """Measure CROWD closed loops."""
    volley = fire(port, message, clients=CROWD, seconds=seconds)
    return volley.pace, volley.busy


def lone(port: int, message: bytes, seconds: float) -> tuple[Pace, float]:
    """Measure one client on a blocking socket."""
    worked, started = time.process_time(), time.monotonic()
    found = pace((each.sent, each.took_s) for each in visit(port, [message], seconds))
    return found, (time.process_time() - worked) / (time.monotonic() - started)


def measure(service: Measurement, empty: Measurement, rounds: int, step: Callable[[], None]) -> dict[str, Any]:
    """Measure pairs a moment apart, forth and back: the machine's speed drifts, so ratios are taken within a pair."""
    service(), empty()  # once unmeasured
    rows = []
    for number in range(rounds):
        if number % 2:
            theirs, ours = empty(), service()
        else:
            ours, theirs = service(), empty()
        rows.append({"service": ours[0].rate, "empty": theirs[0].rate, "p50_ms": ours[0].p50_ms, "p99_ms": ours[0].p99_ms,
                     "busy": ours[1], "empty_busy": theirs[1]})  # fmt: skip
        step()
    ratios = [row["service"] / row["empty"] for row in rows]
    return {
        **{name: median(row[name] for row in rows) for name in rows[0]},
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rows,
    }


def cells(case: dict[str, Any]) -> tuple[str, ...]:
    """Word what `measure` found: both rates, then COLUMNS."""
    return (
        f"{case['service']:.0f}",
        f"{case['empty']:.0f}",
        f"{case['ratio']:.3f}",
        f"{case['ratio_min']:.2f}–{case['ratio_max']:.2f}",
        f"{case['p50_ms']:.2f}",
        f"{case['p99_ms']:.2f}",
    )

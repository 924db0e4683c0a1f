"""`python -m benchmarks.overload`: far more clients than the service can answer in time. What comes out, and does it recover?"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from benchmarks import load, pictures, process, results
from benchmarks.models import add_model_flags, make_resnet18
from benchmarks.statistics import median, pace, percentile_ms

CROWD = 256
PATIENCE_S = 2.0
PEAK_CLIENTS = 8

_NORMAL = 1.25
"""A lone client's latency is normal again when it is at most this many times its median before the crowd came."""

_PEAK_PART = 0.3
"""The rate at 8 clients is measured before and after, each for this part of the time that the crowd stays."""

_WATCH_S = 5.0
"""For how long the lone client looks after the crowd has left; also what is reported where it has not become normal by then."""


@dataclass(frozen=True)
class Crowd:
    """A kind of crowd.

    Attributes:
        name: in the result file.
        title: for people.
        pause: what its clients do after a refusal.
        promised: whether the goals are about it.
    """

    name: str
    title: str
    pause: load.Pause
    promised: bool = False


CROWDS = (
    Crowd("honour", "honours Retry-After", load.honour, promised=True),
    Crowd("second", "comes back after 1 s, whatever was asked", lambda sample: 1.0),
    Crowd("impatient", "comes back after 0.1 s, whatever was asked", lambda sample: 0.1),
)


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Count and percentiles of latencies; empty has a count only."""
    if not seconds:
        return {"count": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    return {
        "count": len(seconds),
        "p50_ms": percentile_ms(seconds, 50),
        "p99_ms": percentile_ms(seconds, 99),
        "max_ms": max(seconds) * 1e3,
    }


async def _peak(port: int, messages: Sequence[bytes], seconds: float) -> float:
    samples = await load.drive(port, messages, clients=PEAK_CLIENTS, seconds=seconds)
    return pace((sample.sent, sample.took_s) for sample in samples if sample.status == 200).rate


async def _normal_after(port: int, messages: Sequence[bytes], normal_s: float) -> float:
    """Watch a lone client. Returns seconds until the end of its first request from which on the median of five is normal."""
    left = time.monotonic()
    samples = await load.drive(
        port, messages, clients=1, seconds=_WATCH_S, patience_s=PATIENCE_S, pause=lambda sample: 0.02
    )
    good = [sample.status == 200 and sample.took_s <= normal_s for sample in samples]
    for place, sample in enumerate(samples):
        following = good[place : place + 5]
        if good[place] and sum(following) * 2 > len(following):
            return sample.done - left
    return _WATCH_S


def _returns_in_time(samples: Sequence[load.Sample]) -> float:
    """Of the requests that came after a refusal, the part that was not refused again."""
    refused: dict[int, bool] = {}
    returns, kept = 0, 0
    for sample in samples:  # in the order in which they ended, which for one client is the order in which it sent them
        if refused.get(sample.client):
            returns += 1
            kept += sample.status != 429
        refused[sample.client] = sample.status == 429
    return kept / returns if returns else 0.0


async def _crowd(port: int, crowd: Crowd, messages: Sequence[bytes], seconds: float, normal_s: float) -> dict[str, Any]:
    began = time.monotonic()
    samples = await load.drive(
        port, messages, clients=CROWD, seconds=seconds, patience_s=PATIENCE_S, pause=crowd.pause, leave=True
    )
    statuses = Counter(sample.status for sample in samples)
    good = [sample for sample in samples if sample.status == 200]
    in_time = sum(sample.took_s <= PATIENCE_S for sample in good)
    return {
        # Up to the last answer: what was being worked on when they left at once is nobody's.
        "rate": in_time / (max(sample.done for sample in good) - began) if good else 0.0,
        "clients_answered": len({sample.client for sample in good}),
        "returns_in_time": _returns_in_time(samples),
        "accepted": latencies([sample.took_s for sample in samples if sample.status in {200, 504, load.GAVE_UP}]),
        "refusals": latencies([sample.took_s for sample in samples if sample.status == 429]),
        "asked_to_wait_s": median([sample.retry_after_s for sample in samples if sample.status == 429] or [0.0]),
        "too_late": statuses[504] + statuses[load.GAVE_UP],
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "normal_after_s": await _normal_after(port, messages, normal_s),
    }


async def measure(running: process.Running, crowds: Sequence[Crowd], seconds: float, rounds: int) -> dict[str, Any]:
    """Measure alone, at the peak, in the crowd, after it, at the peak again; rounds of it, since the machine's speed drifts."""
    encoded = [pictures.jpeg(seed=seed) for seed in range(8)]
    path = "/v1/classify?model=resnet18"
    patient = [load.request(path, picture) for picture in encoded]
    hurried = [load.request(path, picture, timeout_s=PATIENCE_S) for picture in encoded]
    await load.drive(running.port, patient, clients=PEAK_CLIENTS, seconds=2.0)  # first runs of a size allocate
    found: dict[str, list[dict[str, Any]]] = {crowd.name: [] for crowd in crowds}
    alone_ms, peaks = [], []
    for _ in range(rounds):
        for crowd in crowds:
            alone = await load.drive(running.port, patient, clients=1, seconds=3.0)
            alone_ms.append(percentile_ms([sample.took_s for sample in alone], 50))
            before = await _peak(running.port, patient, _PEAK_PART * seconds)
            row = await _crowd(running.port, crowd, hurried, seconds, _NORMAL * alone_ms[-1] / 1e3)
            after = await _peak(running.port, patient, _PEAK_PART * seconds)
            peaks += [before, after]
            row["of_peak"] = row["rate"] / ((before + after) / 2)
            found[crowd.name].append(row)
    return {
        "alone": {"p50_ms": median(alone_ms)},
        "peak": {"clients": PEAK_CLIENTS, "rate": median(peaks)},
        "crowds": [{"name": crowd.name, "title": crowd.title, **_summary(found[crowd.name])} for crowd in crowds],
    }


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, of the worst figures the worst."""
    names = ("rate", "of_peak", "asked_to_wait_s", "clients_answered", "returns_in_time")
    merged: dict[str, Any] = {name: median(row[name] for row in rows) for name in names}
    merged["normal_after_s"] = max(row["normal_after_s"] for row in rows)
    merged["too_late"] = sum(row["too_late"] for row in rows)
    for name in ("accepted", "refusals"):
        merged[name] = {
            "count": sum(row[name]["count"] for row in rows),
            "p50_ms": median(row[name]["p50_ms"] for row in rows),
            "p99_ms": max(row[name]["p99_ms"] for row in rows),
            "max_ms": max(row[name]["max_ms"] for row in rows),
        }
    merged["rounds"] = list(rows)
    return merged


def goals(found: dict[str, Any]) -> list[results.Goal]:
    """What was promised of clients that honour Retry-After."""
    promised = {crowd.name for crowd in CROWDS if crowd.promised}
    made = []
    for crowd in found["crowds"]:
        if crowd["name"] in promised:
            made += [
                results.Goal("answers/s of those at 8 clients", crowd["of_peak"], ">=", 0.95),
                results.Goal("refusals, p99 ms", crowd["refusals"]["p99_ms"], "<=", 100),
                results.Goal("accepted, p99 ms", crowd["accepted"]["p99_ms"], "<=", PATIENCE_S * 1e3),
                results.Goal("normal again after, s", crowd["normal_after_s"], "<=", 1.0),
            ]
    return made


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    rows = []
    for crowd in found["crowds"]:
        accepted, refusals = crowd["accepted"], crowd["refusals"]
        rows.append(
            (
                crowd["title"],
                f"{crowd['rate']:.1f}",
                f"{crowd['of_peak']:.3f}",
                f"{accepted['p50_ms']:.0f}",
                f"{accepted['p99_ms']:.0f}",
                str(crowd["too_late"]),
                str(refusals["count"]),
                f"{refusals['p50_ms']:.1f}",
                f"{refusals['p99_ms']:.1f}",
                f"{refusals['max_ms']:.1f}",
                f"{crowd['clients_answered']:.0f}",
                f"{crowd['returns_in_time']:.2f}",
                f"{crowd['normal_after_s']:.2f}",
            )
        )
    columns = (
        "a refused client",
        "answers /s",
        "of peak",
        "accepted p50 ms",
        "p99",
        "too late",
        "refused",
        "p50 ms",
        "p99",
        "max",
        "clients answered",
        "returns that find a place",
        "normal after s",
    )
    peak = (str(PEAK_CLIENTS), f"{found['peak']['rate']:.1f}", f"{found['alone']['p50_ms']:.1f}")
    return [
        results.Grid(f"{CROWD} clients with {PATIENCE_S:g} s of patience; ResNet-18, 500×375 JPEG", columns, rows),
        results.Grid("Without a crowd", ("clients", "answers /s", "a lone client's p50 ms"), [peak]),
        results.goals_grid(goals(found)),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.overload",
        description=f"Send {CROWD} clients with {PATIENCE_S:g} s of patience to a service that can answer a few dozen in time.",
    )
    add_model_flags(parser)
    names = [crowd.name for crowd in CROWDS]
    parser.add_argument("--seconds", type=float, default=20.0, help="that a crowd stays [20]")
    parser.add_argument("--rounds", type=int, default=2, help="of everything [2]")
    parser.add_argument("--crowd", choices=names, action="append", help="only this, and keep nothing; may be repeated")
    flags = parser.parse_args()
    crowds = [crowd for crowd in CROWDS if flags.crowd is None or crowd.name in flags.crowd]
    console = results.terminal()
    folder = make_resnet18(flags.resnet18)
    with process.service(folder, "--provider", flags.provider) as running, console.status("alone, peak, crowd, peak"):
        found = uvloop.run(measure(running, crowds, flags.seconds, flags.rounds))
    results.finish("overload", found, grids(found), console, save=flags.crowd is None)


if __name__ == "__main__":
    main()

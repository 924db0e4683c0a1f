"""`python -m benchmarks.soak`: versions are swapped while clients ask by every road; each answer is held against the one it names.

Versions come and go as users bring them: a folder is copied in, the old one is deleted at once. What must not be: a failed answer,
an answer whose numbers are another version's than it names, or one of an older version than somebody had seen before it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import process, results, versions
from benchmarks.load import HOST
from benchmarks.memory import resident_mb
from benchmarks.statistics import percentile_ms

CLIENTS = 32
EVERY_S = 2.0
POLL_S = 0.25
SECONDS = 600.0
EARLY_S = 60.0
"""When memory is what it should stay; in a short run, after a third of it. Medians over a quarter of the rest are compared."""


@dataclass
class Found:
    """What clients have seen.

    Attributes:
        took_s: of each answer, by its road.
        failed: what was no answer, by what it was instead.
        wrong: answers whose numbers are another version's.
        stale: answers of an older version than was seen before they were asked.
        seen: answers of each version.
        resident: (seconds from the start, 10⁶ bytes) of the service.
        written: versions that were copied in.
        newest: version that has answered.
    """

    took_s: dict[str, list[float]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    stale: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    resident: list[tuple[float, float]] = field(default_factory=list)
    written: int = 1
    newest: int = 1

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(map(len, self.took_s.values()))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> tuple[int, bytes]:
    """Send a request. Returns the answer's status and body."""
    writer.write(message)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def _client(port: int, number: int, ends: float, found: Found) -> None:
    """Ask by one road after the other until the end."""
    roads = versions.roads(number)
    reader, writer = await asyncio.open_connection(HOST, port)
    turn = number
    while time.monotonic() < ends:
        road = roads[turn % len(roads)]
        turn += 1
        newest, sent = found.newest, time.monotonic()
        try:
            status, body = await _ask(reader, writer, road.message)
        except (OSError, asyncio.IncompleteReadError) as error:
            found.failed[f"{road.name}: {type(error).__name__}"] += 1
            writer.close()
            reader, writer = await asyncio.open_connection(HOST, port)
            continue
        took_s = time.monotonic() - sent
        if status != 200:
            found.failed[f"{road.name}: {status} {body[:200].decode(errors='replace')}"] += 1
            continue
        found.took_s.setdefault(road.name, []).append(took_s)
        named, said = road.read(body)
        found.seen[named] += 1
        found.wrong += named != said
        found.stale += named < newest
        found.newest = max(found.newest, named)
    writer.close()


async def _swap(folder: Path, ends: float, found: Found) -> None:
    """Copy the next version in and delete the one before, again and again."""
    while time.monotonic() + EVERY_S < ends:
        await asyncio.sleep(EVERY_S)
        await asyncio.to_thread(versions.write, folder, found.written + 1)
        await asyncio.to_thread(shutil.rmtree, folder / versions.NAME / str(found.written))
        found.written += 1


async def _watch(pid: int, started: float, ends: float, found: Found, progress: Progress) -> None:
    """Take the service's memory once a second, and show how it goes."""
    total = ends - started
    task = progress.add_task("soak", total=round(total))
    while (now := time.monotonic()) < ends:
        found.resident.append((now - started, resident_mb(pid)))
        wrong = sum(found.failed.values()) + found.wrong + found.stale
        said = f"version {found.newest}, {found.answers} answers, {wrong} bad, {found.resident[-1][1]:.0f} MB"
        progress.update(task, completed=round(now - started), description=said)
        await asyncio.sleep(min(1.0, total / 20))
    progress.update(task, completed=round(total))


async def _course(folder: Path, running: process.Running, seconds: float, found: Found, progress: Progress) -> None:
    started = time.monotonic()
    ends = started + seconds
    await asyncio.gather(
        *(_client(running.port, number, ends, found) for number in range(CLIENTS)),
        _swap(folder, ends, found),
        _watch(running.pid, started, ends, found, progress),
    )


def soak(seconds: float, progress: Progress) -> Found:
    """Run it."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions.write(folder, 1)
        with process.service(folder, "--model-control", "poll", "--poll-s", f"{POLL_S:g}") as running:
            asyncio.run(_course(folder, running, seconds, found, progress))
    return found


def summary(found: Found, seconds: float) -> dict[str, Any]:
    """Sum up."""
    early = [mb for at, mb in found.resident if at >= min(EARLY_S, seconds / 3)]
    every = [took for road in found.took_s.values() for took in road]
    few = max(1, len(early) // 4)
    after_minute, at_end = sorted(early[:few])[few // 2], sorted(early[-few:])[few // 2]
    return {
        "seconds": seconds,
        "clients": CLIENTS,
        "answers": found.answers,
        "failed": sum(found.failed.values()),
        "failures": dict(found.failed.most_common(10)),
        "wrong": found.wrong,
        "stale": found.stale,
        "versions_written": found.written,
        "versions_that_answered": len(found.seen),
        "p50_ms": percentile_ms(every, 50),
        "p99_ms": percentile_ms(every, 99),
        "longest_ms": max(every) * 1e3,
        "roads": {
            name: {"answers": len(took), "p50_ms": percentile_ms(took, 50), "p99_ms": percentile_ms(took, 99)}
            for name, took in found.took_s.items()
        },
        "resident_early_mb": after_minute,
        "resident_end_mb": at_end,
        "growth": at_end / after_minute - 1,
        "resident_mb": [mb for _, mb in found.resident[:: max(1, len(found.resident) // 40)]],
    }


def grids(figures: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    whole = (
        f"{figures['seconds']:.0f} s, {figures['clients']} clients",
        f"{figures['answers']}",
        f"{figures['versions_that_answered'] - 1}",
        f"{figures['failed']}",
        f"{figures['wrong']}",
        f"{figures['stale']}",
        f"{figures['p50_ms']:.1f}",
        f"{figures['p99_ms']:.1f}",
        f"{figures['resident_early_mb']:.0f}",
        f"{figures['resident_end_mb']:.0f}",
    )
    columns = ("", "answers", "swaps", "failed", "wrong", "stale", "p50 ms", "p99 ms", "MB early", "MB at the end")
    rows = [
        (name, f"{road['answers']}", f"{road['p50_ms']:.1f}", f"{road['p99_ms']:.1f}")
        for name, road in figures["roads"].items()
    ]
    goals = [
        results.Goal(
            "failed, wrong and stale answers", figures["failed"] + figures["wrong"] + figures["stale"], "<=", 0
        ),
        results.Goal("growth of resident memory", abs(figures["growth"]), "<=", 0.1),
    ]
    return [
        results.Grid("Versions swapped under load", columns, (whole,)),
        results.Grid("By road", ("", "answers", "p50 ms", "p99 ms"), rows),
        results.goals_grid(goals),
    ]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"how long [{SECONDS:.0f}]")
    seconds: float = parser.parse_args().seconds
    console = results.terminal()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        figures = summary(soak(seconds, bar), seconds)
    for words, count in figures["failures"].items():
        console.print(f"failed {count} times: {words}", style="red")
    results.finish("soak", figures, grids(figures), console, save=seconds >= SECONDS)


if __name__ == "__main__":
    main()

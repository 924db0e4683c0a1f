"""`python -m benchmarks.tiny`: a tiny CNN fed with raw numbers against a route that only receives them, in one run."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks import load, process, results
from benchmarks.alone import stages_ms, visit
from benchmarks.models import make_tiny, newest
from benchmarks.pairs import COLUMNS, CROWD, cells, crowd, lone, measure
from benchmarks.statistics import median
from service.runtime.session import Session

FOLDER = Path("build/tiny")
PROCESSES = (1, 2)
_RUNS = 2000


def words() -> bytes:
    """Word the request: 28×28 float32, 3136 bytes."""
    body = np.random.default_rng(0).standard_normal((1, 28, 28)).astype(np.float32).tobytes()
    path = "/v1/classify?model=tiny&shape=1,28,28&dtype=float32"
    return load.request(path, body, content_type="application/octet-stream")


def bare_runs() -> list[dict[str, Any]]:
    """Time the session itself in this process: microseconds of a run, the median."""
    found = []
    data = newest(FOLDER, "tiny").read_bytes()
    for threads, title in ((1, "one thread"), (0, "all threads")):
        session = Session(data, provider="cpu", threads=threads)
        for images in (1, CROWD // 2):
            x = np.random.default_rng(0).standard_normal((images, 1, 28, 28)).astype(np.float32)
            took = []
            for _ in range(_RUNS):
                started = time.perf_counter()
                session.run({session.inputs[0]: x})
                took.append(time.perf_counter() - started)
            found.append({"threads": title, "images": images, "run_us": median(took) * 1e6})
    return found


def goals(found: dict[str, Any]) -> list[results.Goal]:
    """What was promised of the figures."""
    made = []
    for case in found["cases"]:
        who = f"{case['clients']} clients, {case['processes']} processes"
        if case["clients"] == 1:
            made.append(results.Goal("a lone client: requests/s", case["service"], ">=", 2000))
        else:
            made.append(results.Goal(f"{who}: rate / empty route's", case["ratio"], ">=", 0.45))
    return made


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    rates = [
        (
            f"{case['clients']} clients, {case['processes']} processes",
            *cells(case),
            f"{case['busy']:.2f}",
            f"{case['empty_busy']:.2f}",
        )
        for case in found["cases"]
    ]
    runs = [(f"{run['images']} images, {run['threads']}", f"{run['run_us']:.0f}") for run in found["runs"]]
    names = found["alone_ms"]
    columns = ("", "service /s", "empty route /s", *COLUMNS, "client busy", "on empty")
    return [
        results.Grid("A tiny CNN, 28×28 float32 as raw numbers, and an empty route", columns, rates),
        results.Grid("The bare run, µs", ("", "µs"), runs),
        results.Grid("A lone request, ms", tuple(names), [tuple(f"{value:.3f}" for value in names.values())]),
        results.goals_grid(goals(found)),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.tiny",
        description="Measure /v1/classify with raw numbers for a tiny CNN against an empty ASGI route that receives the same.",
    )
    parser.add_argument("--rounds", type=int, default=8, help="of measured pairs [8]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement [1]")
    flags = parser.parse_args()
    make_tiny(FOLDER)
    message = words()
    found: dict[str, Any] = {"runs": bare_runs(), "cases": []}
    console = results.terminal()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("tiny", total=flags.rounds * (len(PROCESSES) + 1))
        for processes in PROCESSES:
            command = process.service(FOLDER, "--provider", "cpu", "--workers", str(processes))
            with command as service, process.empty(processes) as empty:
                process.wait_for_listeners(service.port, processes)
                for one, clients in ((crowd, CROWD), (lone, 1)) if processes == 1 else ((crowd, CROWD),):
                    runs = [partial(one, each.port, message, flags.seconds) for each in (service, empty)]
                    case = measure(runs[0], runs[1], flags.rounds, lambda: progress.advance(task))
                    found["cases"].append({"clients": clients, "processes": processes, **case})
                if processes == 1:
                    found["alone_ms"] = stages_ms(visit(service.port, [message], flags.seconds))
    results.finish("tiny", found, grids(found), console, save=flags.rounds >= 3)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.serving`: the service over loopback HTTP against its ceiling, in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks import load, pictures, process, results
from benchmarks.alone import stages_ms, visit
from benchmarks.ceiling import Ceiling
from benchmarks.models import add_model_flags, make_resnet18, newest, warm_file_cache
from benchmarks.statistics import Pace, median, pace
from service.settings import Settings

CLIENTS = (1, 8, 32)
STARTS = 5


@dataclass(frozen=True)
class Case:
    """What is sent to which model.

    Attributes:
        name: of the model, in its folder.
        title: for people.
        folder: the model repository that the service is started on.
        encoded: the pictures, sent in turns.
        content_type: of them.
        seconds: of one measurement.
    """

    name: str
    title: str
    folder: Path
    encoded: Sequence[bytes]
    content_type: str
    seconds: float


@dataclass(frozen=True)
class Round:
    """Measurements a moment apart."""

    ceiling: Pace
    service: Pace
    empty: Pace


def measure(case: Case, provider: str, rounds: int, progress: Progress) -> dict[str, Any]:
    """Measure one case: the ceiling, the service and the empty route in rounds, forth and back, at each number of clients.

    The machine's speed drifts, so ratios are taken within a round and their median is reported.
    """
    settings = Settings(provider=provider)
    ceiling = Ceiling(newest(case.folder, case.name), settings)
    path = f"/v1/classify?model={case.name}"
    messages = [load.request(path, picture, content_type=case.content_type) for picture in case.encoded]
    task = progress.add_task(case.title, total=rounds * len(CLIENTS))
    found: dict[int, list[Round]] = {clients: [] for clients in CLIENTS}

    def over_http(port: int, clients: int, seconds: float) -> Pace:
        if clients == 1:
            return pace((each.sent, each.took_s) for each in visit(port, messages, seconds))
        samples = load.run(port, messages, clients=clients, seconds=seconds)
        failed = sorted({sample.status for sample in samples} - {200})
        if failed:
            raise RuntimeError(f"{case.title}: expected 200 only, got {failed} too")
        return pace((sample.sent, sample.took_s) for sample in samples)

    with process.service(case.folder, "--provider", provider) as running, process.empty() as empty:
        measurements: tuple[tuple[str, Callable[[int], Pace]], ...] = (
            ("ceiling", lambda clients: pace(ceiling.measure(case.encoded, clients, case.seconds))),
            ("service", lambda clients: over_http(running.port, clients, case.seconds)),
            ("empty", lambda clients: over_http(empty.port, clients, 0.5)),
        )
        for clients in CLIENTS:  # once unmeasured: first runs of a size allocate
            for _, run in measurements:
                run(clients)
        for number in range(rounds):
            for clients in CLIENTS:
                order = measurements[::-1] if number % 2 else measurements
                found[clients].append(Round(**{name: run(clients) for name, run in order}))
                progress.advance(task)
        stages = stages_ms(visit(running.port, messages, case.seconds))
    return {
        "title": case.title,
        "device": ceiling.device,
        "clients": {str(clients): summary(found[clients]) for clients in CLIENTS},
        "alone_ms": stages,
    }


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Reduce rounds to medians, and to medians of the ratios within each round."""
    rows = [asdict(each) for each in rounds]
    ratios = [each.service.rate / each.ceiling.rate for each in rounds]
    return {
        **{name: {key: median(row[name][key] for row in rows) for key in rows[0][name]} for name in rows[0]},
        "rate_ratio": median(ratios),
        "rate_ratio_min": min(ratios),
        "rate_ratio_max": max(ratios),
        "p50_ratio": median(each.service.p50_ms / each.ceiling.p50_ms for each in rounds),
        "empty_ratio": median(each.service.rate / each.empty.rate for each in rounds),
        "rounds": rows,
    }


def measure_start(folder: Path, provider: str) -> dict[str, Any]:
    """Start the service on the shipped models several times, files in the cache."""
    warm_file_cache(folder)
    seconds = []
    for _ in range(STARTS):
        with process.service(folder, "--provider", provider) as running:
            seconds.append(running.ready_s)
    return {
        "ready_s": median(seconds),
        "ready_s_min": min(seconds),
        "ready_s_max": max(seconds),
        "models": len([path for path in folder.iterdir() if path.is_dir()]),
    }


def goals(found: dict[str, Any]) -> list[results.Goal]:
    """What was promised of the figures."""
    made = []
    resnet = found["cases"].get("resnet18")
    if resnet and resnet["device"] == "cpu":
        eight, one = resnet["clients"]["8"], resnet["clients"]["1"]
        made.append(results.Goal("ResNet-18, 8 clients: rate / ceiling", eight["rate_ratio"], ">=", 0.95))
        made.append(results.Goal("ResNet-18, 1 client: p50 / ceiling", one["p50_ratio"], "<=", 1.05))
    if "start" in found:
        made.append(results.Goal("start to ready, s", found["start"]["ready_s"], "<=", 2.0))
    return made


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    rates, stages = [], []
    for case in found["cases"].values():
        stages.append((case["title"], *(f"{value:.2f}" for value in case["alone_ms"].values())))
        for clients, row in case["clients"].items():
            rates.append(
                (
                    case["title"],
                    clients,
                    f"{row['ceiling']['rate']:.1f}",
                    f"{row['service']['rate']:.1f}",
                    f"{row['rate_ratio']:.3f}",
                    f"{row['rate_ratio_min']:.2f}–{row['rate_ratio_max']:.2f}",
                    f"{row['ceiling']['p50_ms']:.2f}",
                    f"{row['service']['p50_ms']:.2f}",
                    f"{row['p50_ratio']:.3f}",
                    f"{row['service']['p99_ms']:.2f}",
                    f"{row['empty_ratio']:.3f}",
                )
            )
    columns = (
        "",
        "clients",
        "ceiling /s",
        "service /s",
        "ratio",
        "min–max",
        "ceiling p50 ms",
        "p50 ms",
        "ratio",
        "p99 ms",
    )
    made = []
    if found["cases"]:
        names = next(iter(found["cases"].values()))["alone_ms"]
        made.append(results.Grid("Service over loopback HTTP, and its ceiling", (*columns, "of an empty route"), rates))
        made.append(results.Grid("A lone request, ms", ("", *names), stages))
    if "start" in found:
        start = found["start"]
        row = (str(start["models"]), *(f"{start[name]:.2f}" for name in ("ready_s", "ready_s_min", "ready_s_max")))
        made.append(results.Grid("Start to ready, files in the cache", ("models", "s", "min", "max"), [row]))
    return [*made, results.goals_grid(goals(found))]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.serving",
        description="Measure the service over HTTP against decode + session in process, on ResNet-18 and digits; and its start.",
    )
    add_model_flags(parser)
    names = ("start", "resnet18", "digits")
    parser.add_argument("--rounds", type=int, default=6, help="of measurements at each number of clients [6]")
    parser.add_argument("--case", choices=names, action="append", help="only this, and keep nothing; may be repeated")
    flags = parser.parse_args()
    wanted = flags.case or names
    found: dict[str, Any] = {"cases": {}}
    console = results.terminal()
    if "start" in wanted:
        found["start"] = measure_start(flags.models, flags.provider)
    cases = []
    if "resnet18" in wanted:
        photographs = [pictures.jpeg(seed=seed) for seed in range(8)]
        folder = make_resnet18(flags.resnet18)
        cases.append(Case("resnet18", "ResNet-18, 500×375 JPEG", folder, photographs, "image/jpeg", 3.0))
    if "digits" in wanted:
        drawings = [pictures.png(seed=seed) for seed in range(8)]
        cases.append(Case("digits", "digits, 64×64 PNG", flags.models, drawings, "image/png", 1.0))
    with Progress(console=console, transient=True) as progress:
        for case in cases:
            found["cases"][case.name] = measure(case, flags.provider, flags.rounds, progress)
    results.finish("serving", found, grids(found), console, save=flags.case is None)


if __name__ == "__main__":
    main()

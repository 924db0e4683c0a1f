"""`python -m benchmarks.pooling`: tensors over loopback HTTP against what they cost at the least, and against the usual way."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from rich.progress import Progress

from benchmarks import load, process, results
from benchmarks.alone import visit
from benchmarks.models import SHIPPED
from benchmarks.statistics import median, pace
from graphs.operators.native import compose_native
from graphs.operators.regions.windows import WindowGeometry, window_geometry
from service.runtime.session import Session, resolve_provider

CLIENTS = (1, 8)
SHAPES = ((8, 64, 56, 56), (64, 3, 32, 32))
MATRIX = [[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]]
_TENSORS = 4
"""Different tensors of a shape, sent in turns."""

Measurement = Callable[[int], float]
"""Number of clients → seconds for each request: time passed / answers."""


@dataclass(frozen=True)
class Comparison:
    """Things to measure a moment apart.

    Attributes:
        title: for people.
        measurements: by name; `service` is among them.
        compare: seconds for each request by name → the figure that is looked at.
    """

    title: str
    measurements: dict[str, Measurement]
    compare: Callable[[dict[str, float]], float]


def over_http(port: int, messages: Sequence[bytes], seconds: float, clients: int) -> float:
    """Measure closed loops."""
    if clients == 1:
        return 1 / pace((each.sent, each.took_s) for each in visit(port, messages, seconds)).rate
    samples = load.run(port, messages, clients=clients, seconds=seconds)
    failed = sorted({sample.status for sample in samples} - {200})
    if failed:
        raise RuntimeError(f"expected 200 only, got {failed} too")
    return 1 / pace((sample.sent, sample.took_s) for sample in samples).rate


def bare_run(session: Session, tensors: Sequence[np.ndarray], seconds: float, clients: int) -> float:
    """Measure the session, one run after the other: a run has all cores, so that several at once take no less."""
    del clients
    started = time.monotonic()
    runs = 0
    while time.monotonic() - started < seconds:
        session.run_one(tensors[runs % len(tensors)])
        runs += 1
    return (time.monotonic() - started) / runs


def _windows(shape: tuple[int, ...]) -> WindowGeometry:
    return window_geometry(shape[-2:], 2)


def _tensors(shape: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for _ in range(_TENSORS)]


def npy(tensor: np.ndarray) -> bytes:
    """Write a .npy file."""
    file = io.BytesIO()
    np.save(file, tensor)
    return file.getvalue()


def binary(shape: tuple[int, ...], form: str, provider: str, ports: dict[str, int], seconds: float) -> Comparison:
    """The service against a bare route of the same traffic and a bare session, for raw numbers or .npy files."""
    tensors = _tensors(shape)
    sizes = ",".join(map(str, shape))
    path = "/v1/pool?op=max&kernel=2"
    if form == "npy":
        content_type, head, bodies = "application/x-npy", 128, [npy(tensor) for tensor in tensors]
    else:
        path += f"&shape={sizes}&dtype=float32"
        content_type, head, bodies = "application/octet-stream", 0, [tensor.tobytes() for tensor in tensors]
    asked = [load.request(path, body, content_type=content_type) for body in bodies]
    answer = head + tensors[0].nbytes // 4
    floor = [load.request(f"/{answer}", body, content_type=content_type) for body in bodies]
    graph = compose_native("max", _windows(shape), "float32", count_include_pad=True)
    session = Session(graph, provider=resolve_provider(provider))  # type: ignore[arg-type]
    planes = [tensor.reshape(-1, 1, *shape[-2:]) for tensor in tensors]
    return Comparison(
        f"[{sizes}] {form}",
        {
            "session": partial(bare_run, session, planes, seconds / 4),
            "floor": partial(over_http, ports["floor"], floor, seconds),
            "service": partial(over_http, ports["service"], asked, seconds),
        },
        lambda took: took["service"] / (took["floor"] + took["session"]),
    )


def tutorial(shape: tuple[int, ...], ports: dict[str, int], seconds: float) -> Comparison:
    """The service against the usual FastAPI endpoint, in JSON."""
    tensors = [orjson.dumps(tensor, option=orjson.OPT_SERIALIZE_NUMPY) for tensor in _tensors(shape)]
    asked = [b'{"op":"max","kernel":2,"tensor":%b}' % tensor for tensor in tensors]
    plain = [b'{"kernel":2,"tensor":%b}' % tensor for tensor in tensors]
    messages = [load.request("/v1/pool", body, content_type="application/json") for body in asked]
    theirs = [load.request("/pool", body, content_type="application/json") for body in plain]
    return Comparison(
        f"[{','.join(map(str, shape))}] JSON",
        {
            "tutorial": partial(over_http, ports["tutorial"], theirs, 2 * seconds),
            "service": partial(over_http, ports["service"], messages, seconds),
        },
        lambda took: took["tutorial"] / took["service"],
    )


def matrix(ports: dict[str, int], seconds: float) -> Comparison:
    """Sixteen numbers in JSON against a route that does nothing; the requests are the same."""
    body = orjson.dumps({"op": "max", "kernel": 2, "tensor": MATRIX})
    messages = [load.request("/v1/pool", body, content_type="application/json")]
    return Comparison(
        "4×4 matrix, JSON",
        {
            "empty": partial(over_http, ports["empty"], messages, seconds),
            "service": partial(over_http, ports["service"], messages, seconds),
        },
        lambda took: took["empty"] / took["service"],
    )


def measure(comparison: Comparison, rounds: int, step: Callable[[], None]) -> dict[str, Any]:
    """Measure in rounds, forth and back. The machine's speed drifts: figures are taken within a round, then their median."""
    found: dict[str, Any] = {}
    for clients in CLIENTS:
        names = list(comparison.measurements)
        rows: list[dict[str, float]] = []
        for name in names:  # once unmeasured: first runs of a size allocate
            comparison.measurements[name](clients)
        for number in range(rounds):
            order = names[::-1] if number % 2 else names
            rows.append({name: comparison.measurements[name](clients) for name in order})
            step()
        figures = [comparison.compare(row) for row in rows]
        found[str(clients)] = {
            **{f"{name}_ms": 1e3 * median(row[name] for row in rows) for name in names},
            "figure": median(figures),
            "figure_min": min(figures),
            "figure_max": max(figures),
            "rounds": rows,
        }
    return {"title": comparison.title, "clients": found}


def goals(found: dict[str, Any]) -> list[results.Goal]:
    """What was promised of the figures."""
    made = []
    for case in found["binary"]:
        for clients, row in case["clients"].items():
            name = f"{case['title']}, {clients} client{'s' if clients != '1' else ''}: time / (bare route + bare run)"
            made.append(results.Goal(name, row["figure"], "<=", 1.25))
    for key, name, bound in (("tutorial", "rate / tutorial's", 6.0), ("matrix", "rate / empty Starlette route's", 0.7)):
        for clients, row in found[key]["clients"].items():
            title = f"{found[key]['title']}, {clients} client{'s' if clients != '1' else ''}: {name}"
            made.append(results.Goal(title, row["figure"], ">=", bound))
    return made


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""

    def spread(row: dict[str, Any]) -> tuple[str, str]:
        return f"{row['figure']:.2f}", f"{row['figure_min']:.2f}–{row['figure_max']:.2f}"

    costs = [
        (
            case["title"],
            clients,
            *(f"{row[name]:.3f}" for name in ("floor_ms", "session_ms", "service_ms")),
            *spread(row),
            f"{1e3 / row['service_ms']:.0f}",
        )
        for case in found["binary"]
        for clients, row in case["clients"].items()
    ]
    rows = []
    for key, other, title in (
        ("tutorial", "tutorial", "the tutorial's FastAPI endpoint"),
        ("matrix", "empty", "an empty Starlette route"),
    ):
        for clients, row in found[key]["clients"].items():
            theirs, ours = 1e3 / row[f"{other}_ms"], 1e3 / row["service_ms"]
            rows.append((f"{found[key]['title']}, {title}", clients, f"{theirs:.0f}", f"{ours:.0f}", *spread(row)))
    return [
        results.Grid(
            "Binary tensors, max 2×2, float32: ms for each request",
            ("", "clients", "bare route", "bare run", "service", "service / both", "min–max", "service /s"),
            costs,
        ),
        results.Grid("Requests/s in JSON", ("", "clients", "theirs", "service", "ratio", "min–max"), rows),
        results.goals_grid(goals(found)),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.pooling",
        description="Measure /v1/pool over HTTP against a bare route and a bare session, and against a FastAPI endpoint.",
    )
    parser.add_argument("--rounds", type=int, default=6, help="of measurements at each number of clients [6]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement [1]")
    parser.add_argument("--provider", choices=["auto", "cpu", "cuda"], default="auto", help="as the service's [auto]")
    flags = parser.parse_args()
    console = results.terminal()
    with ExitStack() as stack, Progress(console=console, transient=True) as progress:
        running = {
            "service": process.service(SHIPPED, "--provider", flags.provider),
            "floor": process.asgi("benchmarks.pool_floor:app"),
            "tutorial": process.asgi("benchmarks.pool_tutorial:app"),
            "empty": process.asgi("benchmarks.pool_tutorial:empty"),
        }
        ports = {name: stack.enter_context(server).port for name, server in running.items()}
        task = progress.add_task("pooling", total=6 * len(CLIENTS) * flags.rounds)
        run = partial(measure, rounds=flags.rounds, step=lambda: progress.advance(task))
        found: dict[str, Any] = {
            "binary": [
                run(binary(shape, form, flags.provider, ports, flags.seconds))
                for shape in SHAPES
                for form in ("raw", "npy")
            ],
            "tutorial": run(tutorial(SHAPES[1], ports, flags.seconds)),
            "matrix": run(matrix(ports, flags.seconds)),
        }
    results.finish("pooling", found, grids(found), console, save=flags.rounds >= 3)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.protocol`: the same numbers by the Open Inference Protocol and by the native raw endpoint, in one run."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks import load, process, results
from benchmarks.pairs import COLUMNS, CROWD, cells, crowd, lone, measure

MODELS = Path("models")
SIDES = (8, 28)
"""Of the picture in pixels: the digits' own, and that of the tiny CNN's benchmark."""


def native(x: np.ndarray) -> bytes:
    """Word a request to /v1/classify."""
    shape = ",".join(map(str, x.shape))
    path = f"/v1/classify?model=digits&shape={shape}&dtype=float32"
    return load.request(path, x.tobytes(), content_type="application/octet-stream")


def protocol(x: np.ndarray) -> bytes:
    """Word a request to /v2 that wants the probabilities, which are what the other endpoint makes its answer of."""
    given = {"name": "images", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    text = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    message = load.request("/v2/models/digits/infer", text + x.tobytes(), content_type="application/octet-stream")
    return message.replace(b"Content-Type", b"Inference-Header-Content-Length: %d\r\nContent-Type" % len(text), 1)


def grids(cases: list[dict[str, Any]]) -> list[results.Grid]:
    """Lay the figures out."""
    names = [f"{case['side']}×{case['side']}, {case['clients']} clients" for case in cases]
    rows = [(name, *cells(case)) for name, case in zip(names, cases, strict=True)]
    goals = [results.Goal(name, case["ratio"], ">=", 0.9) for name, case in zip(names, cases, strict=True)]
    columns = ("", "protocol /s", "native /s", *COLUMNS)
    return [
        results.Grid("`digits`, float32 as bytes: by the Open Inference Protocol and by /v1/classify", columns, rows),
        results.goals_grid(goals),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.protocol",
        description="Measure inference by the Open Inference Protocol (binary tensors) against /v1/classify with raw numbers.",
    )
    parser.add_argument("--rounds", type=int, default=8, help="of measured pairs [8]")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement [1]")
    flags = parser.parse_args()
    rng = np.random.default_rng(0)
    cases: list[dict[str, Any]] = []
    console = results.terminal()
    with Progress(console=console, transient=True) as progress, process.service(MODELS, "--provider", "cpu") as service:
        task = progress.add_task("protocol", total=flags.rounds * 2 * len(SIDES))
        for side in SIDES:
            x = rng.standard_normal((1, 1, side, side)).astype(np.float32)
            for one, clients in ((crowd, CROWD), (lone, 1)):
                runs = [partial(one, service.port, message, flags.seconds) for message in (protocol(x), native(x))]
                found = measure(runs[0], runs[1], flags.rounds, lambda: progress.advance(task))
                cases.append({"side": side, "clients": clients, **found})
    results.finish("protocol", {"cases": cases}, grids(cases), console, save=flags.rounds >= 3)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.gpu`: ResNet-50 on natural sizes on a GPU: mixed, one at a time, of one size, and sizes seen first."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from benchmarks import results
from benchmarks.models import RESNET18, make_resnet, newest
from benchmarks.ragged import FOREVER_S, crowd
from benchmarks.statistics import median, percentile_ms
from service.runtime.model import Model
from service.runtime.session import Provider, ProviderError, resolve_provider
from service.settings import Settings

BATCH_PIXELS = 2**23
"""Budget of a batch: 52 images of 400×400; the service's default is for CPUs."""

SAME = (400, 400)
"""Height and width of the batches of one size: the mean of the mixed sizes."""


def sizes_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw natural sizes (count,2), sides 200–600 pixels evenly."""
    return rng.integers(200, 601, (count, 2))


def draw(rng: np.random.Generator, sizes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Draw images uint8 (H,W,3); what they show does not matter."""
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def megapixels(images: Sequence[np.ndarray]) -> float:
    """Add up what they have."""
    return sum(image.shape[0] * image.shape[1] for image in images) / 1e6


def seconds(run: Callable[[], object]) -> float:
    """Time something once."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def one_by_one(model: Model, images: Sequence[np.ndarray]) -> None:
    """Run the plain graph image by image, in their own sizes."""
    for image in images:
        model.network.run(image[None])


def same_size(model: Model, images: Sequence[np.ndarray], batch: int) -> None:
    """Run the plain graph in batches of one size."""
    for begin in range(0, len(images), batch):
        model.network.run(np.stack(images[begin : begin + batch]))


def latencies(model: Model, images: Sequence[np.ndarray]) -> list[float]:
    """Send lone images; seconds of each."""

    async def visit() -> list[float]:
        taken = []
        for image in images:
            started = time.perf_counter()
            await model.infer(image, time.monotonic() + FOREVER_S)
            taken.append(time.perf_counter() - started)
        return taken

    return asyncio.run(visit())


def fresh_sizes(rng: np.random.Generator, seen: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Draw sizes that have not occurred."""
    while True:
        height, width = (int(side) for side in sizes_of(rng, 1)[0])
        if (height, width) not in seen:
            seen.add((height, width))
            yield height, width


def measure(
    path: Path, provider: Provider, progress: Progress, *, count: int, alone: int, rounds: int
) -> dict[str, Any]:
    """Measure throughput in rounds, forth and back, then the latency of first-seen sizes beside seen ones."""
    settings = Settings(provider=provider, max_batch_pixels=BATCH_PIXELS)
    model = Model(path.parent.parent.name, "1", path, settings, provider)
    rng = np.random.default_rng(0)
    mixed = draw(rng, sizes_of(rng, count).tolist())
    equal = draw(rng, [SAME] * count)
    batch = max(1, BATCH_PIXELS // (SAME[0] * SAME[1]))
    batch = 1 << (batch.bit_length() - 1)
    task = progress.add_task("ResNet-50", total=rounds + 1)
    model.start()
    found: list[dict[str, float]] = []
    try:
        for number in range(rounds + 1):
            rates: dict[str, float] = {}
            parts: list[tuple[str, Callable[[], object], float]] = [
                ("mixed", lambda: asyncio.run(_all(model, mixed)), megapixels(mixed)),
                ("same", lambda: same_size(model, equal, batch), megapixels(equal)),
                ("alone", lambda: one_by_one(model, mixed[:alone]), megapixels(mixed[:alone])),
            ]
            for name, run, amount in parts[::-1] if number % 2 else parts:
                rates[name] = amount / seconds(run)
            if number:  # the first allocates
                found.append(rates)
            progress.advance(task)
        seen: set[tuple[int, int]] = set()
        known = draw(rng, [next(fresh_sizes(rng, seen)) for _ in range(8)])
        latencies(model, known)
        again, first = [], []
        for _ in range(rounds * 4):
            again += latencies(model, known)
            first += latencies(model, draw(rng, [next(fresh_sizes(rng, seen)) for _ in known]))
        tally = asdict(model.tally)
    finally:
        model.stop()
    return {
        "device": model.session.device,
        "images": count,
        "batch": batch,
        "ragged": model.ragged,
        "reasons": list(model.ragged_reasons),
        "megapixels_per_s": {name: median(rates[name] for rates in found) for name in ("mixed", "same", "alone")},
        "of_alone": median(rates["mixed"] / rates["alone"] for rates in found),
        "of_same": median(rates["mixed"] / rates["same"] for rates in found),
        "first_seen_ms": percentile_ms(first, 50),
        "first_seen_p99_ms": percentile_ms(first, 99),
        "seen_ms": percentile_ms(again, 50),
        "seen_p99_ms": percentile_ms(again, 99),
        "wasted": tally["pixels_wasted"] / max(1, tally["pixels_used"] + tally["pixels_wasted"]),
        "rounds": found,
    }


async def _all(model: Model, images: Sequence[np.ndarray]) -> None:
    await crowd(model, images, len(images))


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    rates = found["megapixels_per_s"]
    throughput = (
        "ResNet-50, sides 200–600",
        *(f"{rates[name]:.1f}" for name in ("mixed", "alone", "same")),
        f"{found['of_alone']:.1f}",
        f"{found['of_same']:.2f}",
        f"{found['wasted']:.1%}",
    )
    latency = (
        "a lone image",
        *(f"{found[name]:.1f}" for name in ("first_seen_ms", "seen_ms", "first_seen_p99_ms", "seen_p99_ms")),
    )
    goals = [
        results.Goal("mixed sizes / one at a time with the plain graph", found["of_alone"], ">=", 10.0),
        results.Goal("mixed sizes / batches of one size", found["of_same"], ">=", 0.85),
        results.Goal("first-seen sizes / seen ones, median", found["first_seen_ms"] / found["seen_ms"], "<=", 1.1),
    ]
    columns = ("Mpx/s", "mixed", "one at a time", "one size", "/ one at a time", "/ one size", "pixels wasted")
    return [
        results.Grid(f"Throughput on {found['device']}", columns, [throughput]),
        results.Grid("Sizes", ("ms", "first seen", "seen", "first seen p99", "seen p99"), [latency]),
        results.goals_grid(goals),
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description="Measure ResNet-50 on images of natural sizes on a CUDA device; refuses where there is none.",
    )
    parser.add_argument(
        "--folder", type=Path, default=RESNET18, help="a repository with `resnet50`; made if not there [build/models]"
    )
    parser.add_argument("--images", type=int, default=256, help="of mixed sizes, all waiting at once [256]")
    parser.add_argument("--alone", type=int, default=32, help="of them, that are run one at a time [32]")
    parser.add_argument("--rounds", type=int, default=5, help="of measurements [5]")
    flags = parser.parse_args()
    try:
        provider = resolve_provider("cuda")
        folder = make_resnet(flags.folder, "resnet50")
        console = results.terminal()
        with Progress(console=console, transient=True) as progress:
            path = newest(folder, "resnet50")
            found = measure(path, provider, progress, count=flags.images, alone=flags.alone, rounds=flags.rounds)
    except ProviderError as error:
        sys.exit(f"this benchmark needs a CUDA device: {error}")
    results.finish("gpu", found, grids(found), console, save=True)


if __name__ == "__main__":
    main()

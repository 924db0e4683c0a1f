"""`python -m benchmarks.ragged`: crowds of images of different sizes against the same images one at a time, in one process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.progress import Progress

from benchmarks import results
from benchmarks.models import add_model_flags, make_resnet18, newest
from benchmarks.statistics import median
from service.runtime.model import Model
from service.runtime.session import resolve_provider
from service.settings import Settings

FOREVER_S = 3600.0


@dataclass(frozen=True)
class Case:
    """Images for a model.

    Attributes:
        name: of the model.
        title: for people.
        folder: where the model is.
        sizes: heights and widths in pixels, (n,2).
        together: images that wait at once.
        goal: what the crowd's rate over that of one at a time should be.
    """

    name: str
    title: str
    folder: Path
    sizes: np.ndarray
    together: int
    goal: float


@dataclass(frozen=True)
class Round:
    """Seconds for all images, a moment apart."""

    alone: float
    crowd: float
    bare: float


async def alone(model: Model, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Send one, wait for its answer, send the next."""
    return [model.scores(await model.infer(image, time.monotonic() + FOREVER_S)) for image in images]


async def crowd(model: Model, images: Sequence[np.ndarray], together: int) -> list[np.ndarray]:
    """Keep so many waiting at once."""
    places = asyncio.Semaphore(together)

    async def one(image: np.ndarray) -> np.ndarray:
        async with places:
            return model.scores(await model.infer(image, time.monotonic() + FOREVER_S))

    return list(await asyncio.gather(*(one(image) for image in images)))


def bare(model: Model, images: Sequence[np.ndarray]) -> None:
    """Run the plain graph image by image, with no queue and no thread: what one at a time could be at best."""
    for image in images:
        model.network.run(image[None])


def measure(case: Case, provider: str, rounds: int, progress: Progress) -> dict[str, Any]:
    """Measure one case in pairs, forth and back, and compare the answers."""
    settings = Settings(provider=provider)
    model = Model(case.name, "1", newest(case.folder, case.name), settings, resolve_provider(settings.provider))
    rng = np.random.default_rng(0)
    channels = model.network.channels
    images = [rng.integers(0, 256, (*size, channels), np.uint8) for size in case.sizes]
    task = progress.add_task(case.title, total=rounds + 1)
    found: list[Round] = []
    model.start()

    async def pair(*, reverse: bool) -> tuple[Round, float]:
        seconds: dict[str, float] = {}
        answers: dict[str, list[np.ndarray]] = {}
        for name in ("crowd", "alone") if reverse else ("alone", "crowd"):
            started = time.perf_counter()
            answers[name] = await (crowd(model, images, case.together) if name == "crowd" else alone(model, images))
            seconds[name] = time.perf_counter() - started
        started = time.perf_counter()
        bare(model, images)
        seconds["bare"] = time.perf_counter() - started
        error = max(
            float(np.abs(one - other).max() / np.abs(one).max())
            for one, other in zip(answers["alone"], answers["crowd"], strict=True)
        )
        return Round(**seconds), error

    try:
        gc.collect()
        gc.freeze()  # and the loop, as the service has them
        uvloop.run(pair(reverse=False))  # once unmeasured: first runs of a size allocate
        progress.advance(task)
        before = asdict(model.tally)
        worst = 0.0
        for number in range(rounds):
            times, error = uvloop.run(pair(reverse=bool(number % 2)))
            found.append(times)
            worst = max(worst, error)
            progress.advance(task)
        ran = {name: count - before[name] for name, count in asdict(model.tally).items()}
    finally:
        model.stop()
    ratios = [each.alone / each.crowd for each in found]
    count = len(images)
    return {
        "title": case.title,
        "device": model.session.device,
        "images": count,
        "together": case.together,
        "mean_pixels": float(np.prod(case.sizes, axis=1).mean()),
        "goal": case.goal,
        "rate": {name: median(count / asdict(each)[name] for each in found) for name in ("alone", "crowd", "bare")},
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "bare_ratio": median(each.bare / each.crowd for each in found),
        "ragged": model.ragged,
        "reasons": list(model.ragged_reasons),
        "canvases": ran["ragged"] / rounds,
        "plain_runs": ran["plain"] / rounds,
        "wasted": ran["pixels_wasted"] / max(1, ran["pixels_used"] + ran["pixels_wasted"]),
        "largest_relative_difference": worst,
        "rounds": [asdict(each) for each in found],
    }


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    rows = [
        (
            case["title"],
            str(case["together"]),
            f"{case['rate']['alone']:.1f}",
            f"{case['rate']['crowd']:.1f}",
            f"{case['ratio']:.2f}",
            f"{case['ratio_min']:.2f}–{case['ratio_max']:.2f}",
            f"{case['bare_ratio']:.2f}",
            f"{case['canvases']:.0f}",
            f"{case['plain_runs'] - case['images']:.0f}",
            f"{case['wasted']:.1%}",
            f"{case['largest_relative_difference']:.1g}",
        )
        for case in found["cases"].values()
    ]
    columns = (
        "",
        "waiting",
        "one at a time /s",
        "crowd /s",
        "ratio",
        "min–max",
        "of the bare session",
        "canvases",
        "plain runs",
        "pixels wasted",
        "answers differ by",
    )
    goals = [
        results.Goal(f"{case['title']}: crowd / one at a time", case["ratio"], ">=", case["goal"])
        for case in found["cases"].values()
    ]
    return [results.Grid("Images of different sizes, in one process", columns, rows), results.goals_grid(goals)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.ragged",
        description="Measure crowds of images of different sizes against one at a time, on digits and ResNet-18.",
    )
    add_model_flags(parser)
    names = ("digits", "digits-octaves", "digits-64", "natural")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of measurements [6]")
    parser.add_argument("--case", choices=names, action="append", help="only this, and keep nothing; may be repeated")
    flags = parser.parse_args()
    wanted = flags.case or names
    rng = np.random.default_rng(0)
    even = rng.integers(8, 65, (2000, 2))
    octaves = np.round(2 ** rng.uniform(3, 6, (2000, 2))).astype(np.int64)
    natural = rng.integers(200, 601, (48, 2))
    cases = {
        "digits": Case("digits", "digits, sides 8–64 evenly", flags.models, even, 2000, 3.0),
        "digits-octaves": Case("digits", "digits, sides 8–64, each octave as often", flags.models, octaves, 2000, 3.0),
        "digits-64": Case("digits", "digits, sides 8–64 evenly", flags.models, even, 64, 1.0),
        "natural": Case("resnet18", "ResNet-18, sides 200–600", flags.resnet18, natural, len(natural), 0.97),
    }
    if "natural" in wanted:
        make_resnet18(flags.resnet18)
    console = results.terminal()
    found: dict[str, Any] = {"cases": {}}
    with Progress(console=console, transient=True) as progress:
        for name in wanted:
            found["cases"][name] = measure(cases[name], flags.provider, flags.rounds, progress)
    results.finish("ragged", found, grids(found), console, save=flags.case is None)


if __name__ == "__main__":
    main()

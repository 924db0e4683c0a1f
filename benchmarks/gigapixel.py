"""`python -m benchmarks.gigapixel`: a JPEG of 1.2 gigapixels through ResNet-18, and the memory it takes; tiled against whole.

The picture is drawn once and kept in the system's temporary folder. The run takes minutes: `make bench-gigapixel`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import pictures, process, results
from benchmarks.load import HOST
from benchmarks.models import RESNET18, make_resnet18

WIDTH, HEIGHT = 40_000, 30_000
SMALLER = (6_000, 4_500)
LIMIT_S = 3600
CELL = 1000
"""Side of the pictures that the large one is put together from, in pixels."""


def make_picture(folder: Path, width: int, height: int, progress: Progress) -> Path:
    """Draw a picture strip by strip, if the folder has none of this size; about 0.2 bytes a pixel.

    Discs, soft grounds and grain as in photographs, put together from 16 drawings turned and mirrored at random, under rings that
    get finer from the middle to the rim: no two places are alike.
    """
    import pyvips

    file = folder / f"{width}x{height}.jpg"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    drawn = []
    for seed in range(4):
        pixels = pictures.photograph(CELL, CELL, seed)
        cell = pyvips.Image.new_from_memory(pixels.tobytes(), CELL, CELL, 3, "uchar")
        drawn += [turned.copy_memory() for turned in (cell, cell.fliphor(), cell.flipver(), cell.rot90())]
    across, down = -(-width // CELL), -(-height // CELL)
    places = [drawn[i] for i in rng.integers(0, len(drawn), across * down)]
    ground = pyvips.Image.arrayjoin(places, across=across).crop(0, 0, width, height)
    rings = pyvips.Image.zone(width, height, uchar=True)
    picture = ((ground * 3 + rings) / 4).cast("uchar").copy(interpretation="srgb")
    task = progress.add_task(f"drawing {width}×{height}", total=100)
    picture.set_progress(True)
    picture.signal_connect("eval", lambda _, now: progress.update(task, completed=now.percent))
    part = file.with_suffix(".part")
    picture.jpegsave(str(part), Q=70)
    part.rename(file)
    progress.remove_task(task)
    return file


def post(port: int, body: Path | bytes) -> tuple[dict[str, Any], float]:
    """Send a picture and wait for its answer. Returns it, with all classes, and the seconds.

    Raises:
        RuntimeError: not answered with 200.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=LIMIT_S)
    started = time.monotonic()
    data: Any = body.open("rb") if isinstance(body, Path) else body
    length = str(body.stat().st_size if isinstance(body, Path) else len(body))
    connection.request("POST", "/v1/classify?top=1000", data, {"Content-Type": "image/jpeg", "Content-Length": length})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"expected 200, got {response.status}: {content.decode()}")
    return json.loads(content)["results"][0], time.monotonic() - started


def logits(result: dict[str, Any]) -> np.ndarray:
    """Get the logits back from all classes' probabilities, but for a constant: (K,), their mean 0."""
    p = np.empty(len(result["predictions"]))
    for prediction in result["predictions"]:
        p[prediction["index"]] = prediction["probability"]
    found = np.log(p)
    return np.asarray(found - found.mean())


def tiles(port: int) -> tuple[float, float]:
    """Read /metrics: tiles done, and tiles of admitted images that are not."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    return found["poolserve_tiles_total"], found["poolserve_waiting_tiles"]


def resident_bytes(pid: int, *, peak: bool) -> int:
    """Resident size of a process and all its descendants, now or the sum of each one's highest."""
    field = "VmHWM:" if peak else "VmRSS:"
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))
    return 1024 * own + sum(resident_bytes(child, peak=peak) for child in children)


@contextmanager
def bar() -> Iterator[Progress]:
    """Draw a progress bar; one that also shows in a file, now and then, where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=results.terminal()) as progress:
        yield progress


def measure_large(port: int, pid: int, file: Path, progress: Progress) -> dict[str, Any]:
    """Post the large picture, and a small one every few seconds meanwhile."""
    small = pictures.jpeg()
    alone = [post(port, small)[1] for _ in range(15)][5:]
    before = resident_bytes(pid, peak=False)
    found: dict[str, Any] = {}

    def course() -> None:
        try:
            found["result"], found["seconds"] = post(port, file)
        except Exception as error:  # noqa: BLE001 - said below, in the thread that waits
            found["error"] = error

    thread = threading.Thread(target=course)
    thread.start()
    task = progress.add_task(f"{file.stem}: sending", total=None)
    meanwhile: list[float] = []
    largest = before
    begun, _ = tiles(port)
    while thread.is_alive():
        thread.join(2.0)
        done, waiting = tiles(port)
        largest = max(largest, resident_bytes(pid, peak=False))
        if waiting:
            progress.update(task, description=file.stem, completed=done - begun, total=done - begun + waiting)
            meanwhile.append(post(port, small)[1])
    progress.remove_task(task)
    if "error" in found:
        raise RuntimeError("the large picture was not answered") from found["error"]
    result = found["result"]
    pixels = result["width"] * result["height"]
    done, _ = tiles(port)
    return {
        "width": result["width"],
        "height": result["height"],
        "file_mb": file.stat().st_size / 1e6,
        "answer": result["predictions"][0],
        "tiles": done - begun,
        "seconds": found["seconds"],
        "mpx_per_s": pixels / 1e6 / found["seconds"],
        "before_mb": before / 1e6,
        "largest_seen_mb": largest / 1e6,
        "peak_mb": resident_bytes(pid, peak=True) / 1e6,
        "small_alone_ms": 1e3 * statistics.median(alone),
        "small_meanwhile_ms": 1e3 * statistics.median(meanwhile) if meanwhile else float("nan"),
        "small_meanwhile": len(meanwhile),
    }


def measure(flags: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Measure the large picture, then the smaller one tiled and, by a service whose canvas is large enough, whole."""
    folder = Path(tempfile.gettempdir()) / "poolserve-gigapixel"
    models = make_resnet18(flags.resnet18)
    large = make_picture(folder, flags.width, flags.height, progress)
    smaller = make_picture(folder, *SMALLER, progress)
    limits = ("--provider", flags.provider, "--timeout-s", str(LIMIT_S), "--body-timeout-s", str(LIMIT_S))
    found: dict[str, Any] = {}
    with process.service(models, *limits) as running:
        found["large"] = measure_large(running.port, running.pid, large, progress)
        task = progress.add_task("tiled and whole", total=2)
        tiled, tiled_s = post(running.port, smaller)
        progress.advance(task)
    with process.service(models, *limits, "--max-canvas-pixels", str(SMALLER[0] * SMALLER[1])) as running:
        whole, whole_s = post(running.port, smaller)
        if tiles(running.port)[0]:
            raise RuntimeError("expected the picture to run whole, it was tiled")
        whole_peak = resident_bytes(running.pid, peak=True)
        progress.advance(task)
    one, other = logits(tiled), logits(whole)
    found["smaller"] = {
        "width": SMALLER[0],
        "height": SMALLER[1],
        "tiled_s": tiled_s,
        "whole_s": whole_s,
        "whole_peak_mb": whole_peak / 1e6,
        "relative_error": float(np.abs(one - other).max() / np.abs(other).max()),
        "same_order": [p["index"] for p in tiled["predictions"][:5]] == [p["index"] for p in whole["predictions"][:5]],
    }
    return found


def grids(found: dict[str, Any]) -> list[results.Grid]:
    """Lay the figures out."""
    large, smaller = found["large"], found["smaller"]
    made = [
        results.Grid(
            "ResNet-18, a large JPEG, body to answer",
            ("", "file MB", "tiles", "s", "Mpx/s", "resident MB before", "peak, all processes"),
            [
                (
                    f"{large['width']}×{large['height']}",
                    f"{large['file_mb']:.0f}",
                    f"{large['tiles']:.0f}",
                    f"{large['seconds']:.0f}",
                    f"{large['mpx_per_s']:.2f}",
                    f"{large['before_mb']:.0f}",
                    f"{large['peak_mb']:.0f}",
                )
            ],
        ),
        results.Grid(
            "A 500×375 JPEG, ms",
            ("", "median", "of"),
            [
                ("alone", f"{large['small_alone_ms']:.0f}", "10"),
                ("while the large one runs", f"{large['small_meanwhile_ms']:.0f}", f"{large['small_meanwhile']}"),
            ],
        ),
        results.Grid(
            "Tiled and whole",
            ("", "tiled s", "whole s", "whole, peak MB", "relative error of logits"),
            [
                (
                    f"{smaller['width']}×{smaller['height']}",
                    f"{smaller['tiled_s']:.1f}",
                    f"{smaller['whole_s']:.1f}",
                    f"{smaller['whole_peak_mb']:.0f}",
                    f"{smaller['relative_error']:.1e}",
                )
            ],
        ),
    ]
    goals = [
        results.Goal("peak resident size of the service, GiB", large["peak_mb"] * 1e6 / 2**30, "<=", 2.0),
        results.Goal("relative error of logits, tiled against whole", smaller["relative_error"], "<=", 2e-6),
    ]
    return [*made, results.goals_grid(goals)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gigapixel",
        description="Classify a JPEG of 1.2 gigapixels with ResNet-18; its time, the service's memory, and tiled against whole.",
    )
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the large picture [{WIDTH}]")
    parser.add_argument("--height", type=int, default=HEIGHT, help=f"[{HEIGHT}]")
    parser.add_argument("--resnet18", type=Path, default=RESNET18, help="a repository with `resnet18`, made if need be")
    parser.add_argument("--provider", choices=["auto", "cpu", "cuda"], default="auto", help="as the service's [auto]")
    flags = parser.parse_args()
    with bar() as progress:
        found = measure(flags, progress)
    whole_run = (flags.width, flags.height) == (WIDTH, HEIGHT)
    results.finish("gigapixel", found, grids(found), results.terminal(), save=whole_run)


if __name__ == "__main__":
    main()

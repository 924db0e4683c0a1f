"""Measure image decoders against each other; the tables go into docs/decoders.md, between its markers.

    python -m benchmarks.decoders                  # all, about three minutes on two quiet cores
    python -m benchmarks.decoders --only simplejpeg Pillow --sizes 0.2 2 --print

Needs, beside the project: pip install opencv-python-headless pyvips pyvips-binary imagecodecs. One that is missing is left out.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from benchmarks.verdicts import Decoder, cases, luma_difference, verdict
from service.codecs import images
from tests.pictures import encode, textured

DOCUMENT = Path(__file__).parent.parent / "docs" / "decoders.md"
BEGIN, END = "<!-- measured by benchmarks/decoders.py -->", "<!-- end of measured -->"
SIZES = {"0.2": (375, 500), "2": (1224, 1632), "20": (3876, 5168)}  # megapixels: height, width

# The decoders, each as fast as it can be asked to be without changing pixels; RGB out.


def pillow() -> Decoder:
    return lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def simplejpeg() -> Decoder:
    import simplejpeg as library

    return lambda data: library.decode_jpeg(data, "RGB", strict=True)


def simplejpeg_fast() -> Decoder:
    import simplejpeg as library

    return lambda data: library.decode_jpeg(data, "RGB", fastdct=True, fastupsample=True)


def simplejpeg_grey() -> Decoder:
    import simplejpeg as library

    return lambda data: library.decode_jpeg(data, "GRAY", strict=True)


def opencv() -> Decoder:
    import cv2

    cv2.setNumThreads(1)
    return lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def vips() -> Decoder:
    import pyvips

    pyvips.cache_set_max(0)

    def decode(data: bytes) -> np.ndarray:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="truncated")
        image = image.autorot()
        if image.hasalpha():
            image = image.flatten(background=65_535 if image.format == "ushort" else 255)
        return np.asarray(image.colourspace("srgb").numpy())

    return decode


def vips_rows() -> Decoder:
    """256 rows at a time, none kept: what a picture larger than memory needs."""
    import pyvips

    pyvips.cache_set_max(0)

    def decode(data: bytes) -> None:
        image = pyvips.Image.new_from_buffer(data, "", access="sequential", fail_on="truncated")
        for top in range(0, image.height, 256):
            image.crop(0, top, image.width, min(256, image.height - top)).numpy()

    return decode


def imagecodecs() -> Decoder:
    import imagecodecs as library

    by_content = {b"\xff\xd8": library.jpeg8_decode, b"\x89P": library.png_decode, b"RI": library.webp_decode}
    by_content |= {b"GI": library.gif_decode, b"BM": library.bmp_decode, b"II": library.tiff_decode}
    by_content[b"MM"] = library.tiff_decode

    def decode(data: bytes) -> np.ndarray:
        return np.asarray(by_content[data[:2]](data))

    return decode


def poolserve() -> Decoder:
    return lambda data: images.decode(data, channels="RGB", max_pixels=10**9)


def poolserve_grey() -> Decoder:
    return lambda data: images.decode(data, channels="L", max_pixels=10**9)


JPEG_DECODERS: dict[str, Callable[[], Decoder]] = {
    "Pillow": pillow,
    "simplejpeg": simplejpeg,
    "simplejpeg, fast DCT and upsampling": simplejpeg_fast,
    "simplejpeg, grey": simplejpeg_grey,
    "OpenCV": opencv,
    "pyvips": vips,
    "pyvips, rows": vips_rows,
    "imagecodecs": imagecodecs,
    "poolserve": poolserve,
    "poolserve, grey": poolserve_grey,
}
GENERAL = ("Pillow", "OpenCV", "pyvips", "imagecodecs", "poolserve")


def seconds(decode: Decoder, data: bytes, repeats: int, threads: int) -> float:
    def loop() -> None:
        for _ in range(repeats):
            decode(data)

    pool = [threading.Thread(target=loop) for _ in range(threads)]
    begin = time.perf_counter()
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return time.perf_counter() - begin


def speeds(
    decoders: dict[str, Decoder],
    data: bytes,
    megapixels: float,
    *,
    threads: int,
    rounds: int,
    step: Callable[[], None],
) -> dict[str, float]:
    """Median over rounds, megapixels a second; the decoders take turns, so that a slow minute hits all of them."""
    repeats = max(1, round(4 / megapixels))
    taken: dict[str, list[float]] = {name: [] for name in decoders}
    for decode in decoders.values():
        decode(data)
    for _ in range(rounds):
        for name, decode in decoders.items():
            taken[name].append(seconds(decode, data, repeats, threads))
            step()
    return {name: megapixels * repeats * threads / statistics.median(times) for name, times in taken.items()}


def peak_bytes(name: str, path: Path) -> float:
    """Peak of resident memory that decoding adds, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.decoders", "--peak", name, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(name: str, path: Path) -> None:
    decode = JPEG_DECODERS[name]()
    data = path.read_bytes()
    decode(encode(textured(16, 16), "JPEG"))

    def high_water() -> int:
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark
    before = high_water()
    kept = decode(data)
    print(high_water() - before)
    del kept


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def measure(names: list[str], sizes: list[str], rounds: int, progress: Progress) -> str:
    decoders: dict[str, Decoder] = {}
    for name in names:
        try:
            decoders[name] = JPEG_DECODERS[name]()
        except ImportError as error:
            progress.console.print(f"{name} left out: {error}")
    general = {name: decoders[name] for name in GENERAL if name in decoders}
    parts = [f"{environment(list(decoders))}\n"]
    bar = progress.add_task("JPEG", total=len(sizes) * len(decoders) * (2 * rounds + 1))
    columns: list[str] = []
    cells: dict[str, list[str]] = {name: [] for name in decoders}
    for size in sizes:
        height, width = SIZES[size]
        data = encode(textured(height, width), "JPEG", quality=88, subsampling=2)
        megapixels = height * width / 1e6
        columns += [f"{size} Mpx, 1 thread", "2 threads", "peak B/px"]
        one = speeds(decoders, data, megapixels, threads=1, rounds=rounds, step=lambda: progress.advance(bar))
        two = speeds(decoders, data, megapixels, threads=2, rounds=rounds, step=lambda: progress.advance(bar))
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            Path(file.name).write_bytes(data)
            for name in decoders:
                peak = peak_bytes(name, Path(file.name)) / (height * width)
                cells[name] += [f"{one[name]:.0f}", f"{two[name]:.0f}", f"{peak:.1f}"]
                progress.advance(bar)
    parts += ["**JPEG, 4:2:0, quality 88: megapixels a second, and peak memory in bytes a pixel**\n"]
    parts += [table(["", *columns], [[name, *row] for name, row in cells.items()]), ""]

    height, width = SIZES["2"]
    photo = textured(height, width)
    encoded = {
        "PNG": encode(photo, "PNG"),
        "PNG, RGBA": encode(np.dstack([photo, photo[..., :1]]), "PNG"),
        "WebP": encode(photo, "WebP", quality=85),
        "GIF": encode(Image.fromarray(photo).quantize(256), "GIF"),
        "BMP": encode(photo, "BMP"),
        "TIFF, LZW": encode(photo, "TIFF", compression="tiff_lzw"),
    }
    bar = progress.add_task("other formats", total=len(encoded) * len(general) * 3)
    rows: list[list[str]] = []
    for name, data in encoded.items():
        able = {key: decode for key, decode in general.items() if reads(decode, data)}
        result = speeds(able, data, height * width / 1e6, threads=1, rounds=3, step=lambda: progress.advance(bar))
        progress.update(bar, advance=3 * (len(general) - len(able)))
        rows.append([name, *(f"{result[key]:.0f}" if key in result else "–" for key in general)])
    parts += ["**Other formats, 2 megapixels, 1 thread: megapixels a second**\n", table(["", *general], rows), ""]

    judged = {name: decoders[name] for name in ("simplejpeg", *general) if name in decoders}
    rows = []
    for name, data, truth in cases():
        answers = [
            "–" if key == "simplejpeg" and not name.startswith("JPEG") else verdict(decode, data, truth)
            for key, decode in judged.items()
        ]
        rows.append([name, *answers])
    parts += ["**Right or wrong** (simplejpeg reads JPEG only)\n", table(["", *judged], rows), ""]
    parts += [
        "**Luma as stored against luma of the decoded RGB**, in levels of 255\n",
        luma_difference(*SIZES["2"]),
        "",
    ]
    return "\n".join(parts)


def reads(decode: Decoder, data: bytes) -> bool:
    try:
        return decode(data) is not None
    except Exception:  # noqa: BLE001 - see verdict
        return False


def environment(names: list[str]) -> str:
    packages = {"Pillow": "pillow", "simplejpeg": "simplejpeg", "OpenCV": "opencv-python-headless"}
    packages |= {"pyvips": "pyvips-binary", "imagecodecs": "imagecodecs"}
    cpu: Any = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    versions = ", ".join(f"{package} {version(package)}" for name, package in packages.items() if name in names)
    return f"Measured on {cpu}, Python {platform.python_version()}; {versions}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(JPEG_DECODERS), default=list(JPEG_DECODERS), metavar="NAME")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="megapixels (all)")
    parser.add_argument("--rounds", type=int, default=5, help="the median of so many is reported (5)")
    parser.add_argument("--print", action="store_true", help="print the tables, leave docs/decoders.md alone")
    parser.add_argument("--peak", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak[0], Path(arguments.peak[1]))
        return
    with Progress(console=Console(stderr=True)) as progress:
        tables = measure(arguments.only, arguments.sizes, arguments.rounds, progress)
    print(tables)
    if not arguments.print:
        text = DOCUMENT.read_text()
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}")


if __name__ == "__main__":
    main()

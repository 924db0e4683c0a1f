"""The models that are measured: what ships in models/, and a ResNet-18 with random weights, made on demand."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SHIPPED = Path("models")
RESNET18 = Path("build/models")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every benchmark has."""
    parser.add_argument(
        "--models", type=Path, default=SHIPPED, help="the shipped model repository, with `digits` [models]"
    )
    parser.add_argument(
        "--resnet18",
        type=Path,
        default=RESNET18,
        help="a repository with `resnet18`; made if it is not there [build/models]",
    )
    parser.add_argument("--provider", choices=["auto", "cpu", "cuda"], default="auto", help="as the service's [auto]")


def make_resnet18(folder: Path) -> Path:
    """Export ResNet-18 (random weights, seed 0, 1000 classes) if the folder has none. Returns the folder."""
    return make_resnet(folder, "resnet18")


def make_resnet(folder: Path, backbone: str) -> Path:
    """Export a ResNet (random weights, seed 0, 1000 classes) under its own name if the folder has none. Returns the folder."""
    file = folder / backbone / "1" / "model.onnx"
    if not file.exists():
        export = f"export --backbone {backbone} --head gap --seed 0 --num-classes 1000 --out"
        subprocess.run([sys.executable, "-m", "export", *export.split(), str(file)], check=True)
    return folder


def newest(folder: Path, name: str) -> Path:
    """Find a model's file as the service does: its highest version.

    Raises:
        FileNotFoundError: there is none; says how to make it.
    """
    files = sorted((folder / name).glob("*/model.onnx"), key=lambda file: int(file.parent.name))
    if not files:
        raise FileNotFoundError(
            f"{folder / name} has no <version>/model.onnx; `make models` trains and exports the shipped models"
        )
    return files[-1]


def warm_file_cache(folder: Path) -> None:
    """Read every model once."""
    for file in folder.glob("*/*/model.onnx"):
        file.read_bytes()

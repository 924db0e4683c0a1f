"""The models that are measured: what ships in models/, and a ResNet-18 with random weights, made on demand."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphs.card import ModelCard, Preprocessing

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


def make_tiny(folder: Path) -> Path:
    """Write `tiny`, a CNN of ten classes for 28×28 grey pictures with random weights, if the folder has none. Returns the folder.

    Three 3×3 convolutions of stride 2 with ReLU, 16, 32 and 64 channels (28 → 14 → 7 → 4), global average, Gemm.
    """
    file = folder / "tiny" / "1" / "model.onnx"
    if file.exists():
        return folder
    rng = np.random.default_rng(0)
    tape = ir.tape.Tape()

    def weights(*shape: int) -> ir.Value:
        array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
        return tape.initializer(ir.tensor(array, name=f"weights_{len(tape.initializers)}"))

    image = ir.Value(name="image", shape=ir.Shape(["n", 1, 28, 28]), type=ir.TensorType(ir.DataType.FLOAT))
    x, channels = image, 1
    for width in (16, 32, 64):
        convolved = tape.op("Conv", [x, weights(width, channels, 3, 3)], {"pads": [1, 1, 1, 1], "strides": [2, 2]})
        x, channels = tape.op("Relu", [convolved]), width
    x = tape.op("Flatten", [tape.op("GlobalAveragePool", [x])])
    logits = tape.op("Gemm", [x, weights(10, channels)], {"transB": 1})
    logits.name, logits.shape, logits.type = "logits", ir.Shape(["n", 10]), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [image], [logits], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 20}, name="tiny"
    )
    model = ir.Model(graph, ir_version=10)
    ModelCard(preprocessing=Preprocessing(channels="L")).write(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, file)
    return folder

"""A repository of small exported networks, with their torch originals, for tests that need features and heads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from PIL import Image

from export.network import Network
from export.to_onnx import to_onnx
from graphs.card import ModelCard
from tests.export.trunk import tiny_network

LABELS = ("ant", "bee", "cat", "dog")


def save(network: Network, folder: Path) -> Network:
    """Write <folder>/1/model.onnx."""
    (folder / "1").mkdir(parents=True)
    model = to_onnx(network, ModelCard(labels=LABELS))
    (folder / "1" / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    return network


def make(folder: Path, *poolings: str) -> dict[str, Network]:
    """Write a model for each pooling head, by its name, with weights drawn from torch's generator seeded afresh."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"weights of seed {seed}")
    return {
        pooling: save(tiny_network(seed + place, pooling=pooling), folder / pooling)
        for place, pooling in enumerate(poolings)
    }


def tensor(pixels: np.ndarray) -> torch.Tensor:
    """(H,W,C) uint8 → (1,C,H,W) float32, as the card's preprocessing has it."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()

"""Reading a model's file: its graph, and the card that says how pixels become its input."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs.card import ModelCard


class BrokenModel(Exception):
    """A model that cannot be served; the message says which file and why."""


def read_model(path: Path) -> tuple[ir.Model, ModelCard]:
    """Read a graph and its card: model.json beside the file if there is one, else the file's own metadata.

    Raises:
        BrokenModel: no ONNX file, no card, or one that is not valid.
    """
    try:
        graph = ir.load(path)
        ir.external_data.load_to_model(graph)
    except Exception as error:  # protobuf's, onnx-ir's and the file system's errors alike
        raise BrokenModel(f"{path}: not a readable ONNX file: {error}") from error
    beside = path.with_name("model.json")
    try:
        card = ModelCard.model_validate_json(beside.read_bytes()) if beside.exists() else ModelCard.read(graph)
    except ValueError as error:
        raise BrokenModel(f"{beside if beside.exists() else path}: its card is not valid: {error}") from error
    if card is None:
        raise BrokenModel(
            f"{path}: has no card. Put a model.json beside it that says how pixels become its input, such as "
            '{"labels": ["cat", "dog"], "preprocessing": {"channels": "RGB", "scale": 0.00392157, '
            '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}'
        )
    return graph, card


def state_of(path: Path) -> object:
    """What changes when somebody replaces a model's files: its graph's, its weights', its card's."""
    return sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in path.parent.iterdir())

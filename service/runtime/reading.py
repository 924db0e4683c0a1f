"""Reading a model's file: its graph, and the card that says how pixels become its input. Files are checked before that."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from graphs.card import ModelCard
from service.runtime.broken import BrokenModel
from service.runtime.configuration import Configuration
from service.runtime.described import describe
from service.runtime.folder import fingerprint
from service.runtime.inside import find_inside, read_inside
from service.runtime.vocabulary import check_operators
from service.runtime.weights import check_weights

__all__ = ["BrokenModel", "read_model", "state_of"]

_MAX_FILE_BYTES = 2**31 - 1
"""Protobuf reads no larger message."""

_MAX_CARD_BYTES = 2**24


def read_model(path: Path, configuration: Configuration | None = None) -> tuple[ir.Model, ModelCard]:
    """Read a graph with its weights, and its card: model.json beside the file, else the file's own metadata, else by config.pbtxt.

    Args:
        path: of the file, in its version's folder.
        configuration: what the model's config.pbtxt says, if it has one.

    Raises:
        BrokenModel: no ONNX file, files that leave the model's folder, operators that are not known, no card, or one that is not
            valid.
    """
    graph = _read_graph(path)
    check_operators(graph, path)
    check_weights(graph, path)
    try:
        ir.external_data.load_to_model(graph)
    except (OSError, ValueError) as error:
        raise BrokenModel(f"{path.name}: its weights cannot be read: {_innermost(error)}", path) from error
    beside = path.with_name("model.json")
    card = _read_card(beside)
    if card is None:
        try:
            card = ModelCard.read(graph)
        except ValueError as error:
            raise BrokenModel(f"{path.name}: its card is not valid: {error}", path) from error
    if card is None and configuration is not None:
        card = describe(graph, configuration)
    if card is None:
        raise BrokenModel(
            f"{path.name}: has no card. Put a model.json beside it that says how pixels become its input, such as "
            '{"labels": ["cat", "dog"], "preprocessing": {"channels": "RGB", "scale": 0.00392157, '
            '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}',
            path,
        )
    return graph, card


def _read_graph(path: Path) -> ir.Model:
    """Read the file itself; weights in other files are not opened."""
    real = find_inside(path.parent.parent, path)
    size = real.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise BrokenModel(
            f"{path.name}: expected at most {_MAX_FILE_BYTES} bytes, it has {size}; weights can lie in files beside it",
            path,
        )
    try:
        return ir.load(path, format="protobuf")
    except Exception as error:  # protobuf's, onnx-ir's and the file system's errors alike
        raise BrokenModel(f"{path.name}: not a readable ONNX file: {_innermost(error)}", path) from error


def _read_card(path: Path) -> ModelCard | None:
    folder = path.parent.parent
    data = read_inside(folder, path.relative_to(folder).as_posix(), _MAX_CARD_BYTES)
    try:
        return None if data is None else ModelCard.model_validate_json(data)
    except ValueError as error:
        raise BrokenModel(f"{path.name}: its card is not valid: {error}", path) from error


def _innermost(error: BaseException) -> str:
    """Give what was wrong in the first place: errors around it repeat what was read."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"[:300]


def state_of(path: Path) -> object:
    """What changes when somebody replaces a model's files: its graph's, its weights', its card's."""
    return fingerprint(path.parent)

"""The folder of a model's version: a good one, and one that must be refused, with words that tell nothing of the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from service.runtime.broken import BrokenModel
from service.runtime.reading import read_model
from tests.tiny import LABELS, TinyClassifier, card

SECRET = "the machine's own file"


def saved(tmp_path: Path) -> Path:
    """The folder of a good version; outside of its model's folder lies a file that nobody may read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(SECRET)
    return TinyClassifier.random(0).save(tmp_path / "models" / "net" / "1", card()).parent


def save_external(version: Path, change: Callable[[onnx.TensorProto], None] = lambda tensor: None) -> Path:
    """Write a version whose weights lie in weights.bin, after something was done to what is said of `conv`."""
    model = TinyClassifier.random(0).to_onnx(card())
    path = version / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    change(next(tensor for tensor in model.graph.initializer if tensor.name == "conv"))
    path.write_bytes(model.SerializeToString())
    return path


def refused(version: Path) -> str:
    """Read a version that must be refused. Returns why; host's paths and files' contents are not in it."""
    with pytest.raises(BrokenModel) as caught:
        read_model(version / "model.onnx")
    reason = caught.value.reason
    assert str(version.parents[2]) not in reason
    assert SECRET not in str(caught.value)
    assert str(version) in str(caught.value)  # the log has the path
    assert len(reason) < 1000
    return reason


def good(version: Path) -> None:
    """The same folder with good files in it is read."""
    path = version / "model.onnx"
    if os.path.lexists(path):
        path.unlink()
    (version / "model.json").unlink(missing_ok=True)
    TinyClassifier.random(0).save(version, card())
    assert read_model(path)[1].labels == LABELS

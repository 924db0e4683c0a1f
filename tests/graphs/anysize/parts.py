"""A network and the two parts that it is cut into, run by ONNX Runtime and compared."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from graphs.anysize.cut import FEATURES, WEIGHTS, Cut
from tests.claims import relative_error

FLOAT32 = 2e-6
"""Relative to the largest value: a dozen roundings of float32."""


def run(model: ir.Model, feed: str, x: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, {feed: x}), strict=True))


def assert_two_parts_are_the_whole(model: ir.Model, cut: Cut, feed: str, x: np.ndarray) -> np.ndarray:
    """The head on the trunk's features gives what the network gives. Returns the features."""
    whole, features = run(model, feed, x), run(cut.trunk, feed, x)[FEATURES]
    parts = run(cut.head, FEATURES, features)
    assert list(whole) == [name for name in parts if name != WEIGHTS]
    for name, expected in whole.items():
        assert relative_error(parts[name], expected) <= FLOAT32, name
    return features

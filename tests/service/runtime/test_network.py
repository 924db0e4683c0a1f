"""Networks of small graphs built by hand: canvases against float64, and a masked graph that is none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import EXTENTS, Plan
from graphs.card import ModelCard
from service.runtime.network import Network
from service.runtime.stopwatch import Stopwatch
from service.runtime.warmup import measure
from service.settings import Settings
from tests.claims import relative_error
from tests.tiny import TinyClassifier, card


def plan_of(network: TinyClassifier, its: ModelCard) -> Plan:
    return compile_plan(ir.serde.deserialize_model(network.to_onnx(its)), its)


def test_images_on_a_canvas_of_noise_get_their_own_logits(rng: np.random.Generator) -> None:
    """Relative error ≤ 1e-5 against float64, 30 pictures of random sizes."""
    tiny, its = TinyClassifier.random(int(rng.integers(1000))), card("BGR")
    plan = plan_of(tiny, its)
    assert plan.ragged is not None
    network = Network(plan, Settings(), "cpu")
    network.build_ragged(plan.ragged)
    images = [rng.integers(0, 256, (*rng.integers(1, 30, 2), 3), np.uint8) for _ in range(30)]
    canvas = rng.integers(0, 256, (30, 31, 33, 3), np.uint8)
    extents = np.zeros((30, 4), np.int64)
    for place, image in enumerate(images):
        h, w = image.shape[:2]
        canvas[place, :h, :w] = image
        extents[place, 2:] = h, w
    (logits,) = network.run_ragged(canvas, extents)
    for image, got in zip(images, logits, strict=True):
        assert relative_error(got, tiny.logits(image, its.preprocessing)) <= 1e-5


def test_graph_that_does_not_mask_is_found_at_warm_up(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain graph with an input for extents that it does not look at."""
    its = card()
    plan = plan_of(TinyClassifier.random(int(rng.integers(1000))), its)
    unmasked = plan.plain.clone()
    unmasked.graph.inputs.append(
        ir.Value(name=EXTENTS, shape=ir.Shape(["n", 4]), type=ir.TensorType(ir.DataType.INT64))
    )
    network = Network(plan, Settings(), "cpu")
    monkeypatch.setattr(
        Stopwatch, "image_s", lambda *_: 1.0
    )  # seconds: sharing a run pays, however slow this machine is
    costs, reason = measure(network, unmasked, 1)
    assert costs is None
    assert "'logits' differs by" in reason
    assert network.ragged_bytes == 0

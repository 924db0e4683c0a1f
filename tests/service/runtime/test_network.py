"""Networks of small graphs built by hand: canvases against float64, and a masked graph that is none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import EXTENTS, Plan
from graphs.card import ModelCard
from service.runtime.batcher import Answer, Batcher
from service.runtime.costs import BatchCost, Costs, Curve
from service.runtime.grouping import Grouping
from service.runtime.network import Network
from service.runtime.reading import read_model
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


@pytest.mark.parametrize("switch_s", [0.0, 5.0], ids=["any shape", "few shapes"])
@pytest.mark.parametrize("name", ["digits", "digits-attention"])
def test_crowd_of_different_sizes_gets_what_the_unchanged_file_gives_each_alone(
    rng: np.random.Generator, name: str, switch_s: float
) -> None:
    """A shipped model, 64 images through the queue on shared canvases; relative error of logits ≤ 2e-6."""
    path = Path(__file__).parents[3] / "models" / name / "1" / "model.onnx"
    graph, its = read_model(path)
    plan = compile_plan(graph, its)
    assert plan.ragged is not None, plan.ragged_obstacles
    network = Network(plan, Settings(), "cpu")
    network.build_ragged(plan.ragged)
    line = Curve.through([(1, 1.0), (10_000, 1.1)])
    ragged = BatchCost(1.0, Curve.through([(1, 1e-6), (10_000, 1e-2)]))
    sharing = Costs(line, BatchCost(1.0, line), ragged, switch_s=switch_s)
    grouping = Grouping(sharing, max_pixels=2**17)
    batcher = Batcher(network.run, name=name, grouping=grouping, run_ragged=network.run_ragged)
    images = [rng.integers(0, 256, (*rng.integers(1, 100, 2), 1), np.uint8) for _ in range(64)]

    async def everybody() -> list[Answer]:
        crowd = asyncio.gather(*(batcher.submit(image, 1e9) for image in images))
        await asyncio.sleep(0)
        batcher.start()
        return list(await crowd)

    answers = asyncio.run(everybody())
    batcher.stop()
    assert batcher.tally.ragged >= 1
    assert batcher.tally.pixels_wasted > 0
    unchanged = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = unchanged.get_inputs()[0].name
    preprocessing = its.preprocessing
    for image, answer in zip(images, answers, strict=True):
        x = image.astype(np.float32).transpose(2, 0, 1)[None] * np.float32(preprocessing.scale)  # (1,1,H,W)
        x = (x - np.float32(preprocessing.mean[0])) / np.float32(preprocessing.std[0])
        (logits,) = unchanged.run(["logits"], {fed: x})
        assert relative_error(answer.outputs[0], logits[0]) <= 2e-6

"""A crew: as many networks of one thread as there are cores, where they were measured to pay; the clock is the test's."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import Plan
from service.runtime import crew
from service.runtime.crew import make_crew
from service.runtime.network import Network
from service.settings import Settings
from tests.tiny import TinyClassifier, card


def plan_of(rng: np.random.Generator) -> Plan:
    its = card()
    return compile_plan(ir.serde.deserialize_model(TinyClassifier.random(int(rng.integers(1000))).to_onnx(its)), its)


@pytest.mark.parametrize(("pays_to", "largest"), [(0, None), (16, 16), (40, 32), (10_000, 128)])
def test_images_up_to_the_largest_side_that_pays_go_side_by_side(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, pays_to: int, largest: int | None
) -> None:
    """Sides 16, 32, 64, 128 are timed."""
    monkeypatch.setattr(crew, "_gain", lambda _network, _networks, _threads, side: 1.5 if side <= pays_to else 1.05)
    plan, settings = plan_of(rng), Settings(threads=3)
    made = make_crew(Network(plan, settings, "cpu"), plan, settings, 16)
    assert (made and made.max_pixels) == (largest and largest**2)
    assert made is None or len(made.networks) == 3


def test_each_of_a_crew_gives_what_the_whole_machine_gives(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative error ≤ 1e-6: one thread may add in another order than several."""
    monkeypatch.setattr(crew, "_gain", lambda *_: 2.0)  # it pays on any machine
    plan, settings = plan_of(rng), Settings(threads=2)
    network = Network(plan, settings, "cpu")
    made = make_crew(network, plan, settings, 16)
    assert made is not None
    pixels = rng.integers(0, 256, (3, 17, 23, 3), np.uint8)
    for one in made.networks:
        for got, expected in zip(one.run(pixels), network.run(pixels), strict=True):
            assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_one_core_has_no_crew(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_gain", lambda *_: 2.0)
    plan, settings = plan_of(rng), Settings(threads=1)
    assert make_crew(Network(plan, settings, "cpu"), plan, settings, 16) is None

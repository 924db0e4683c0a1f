"""A crew: as many networks of one thread as there are cores, where they were measured to pay; the clock is the test's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
    monkeypatch.setattr(crew, "_pays", lambda _network, _networks, _threads, side: side <= pays_to)
    plan, settings = plan_of(rng), Settings(threads=3)
    made = make_crew(Network(plan, settings, "cpu"), plan, settings, 16)
    assert (made and made.max_pixels) == (largest and largest**2)
    assert made is None or len(made.networks) == 3


def test_each_of_a_crew_gives_what_the_whole_machine_gives(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative error ≤ 1e-6: one thread may add in another order than several."""
    monkeypatch.setattr(crew, "_pays", lambda *_: True)  # it pays on any machine
    plan, settings = plan_of(rng), Settings(threads=2)
    network = Network(plan, settings, "cpu")
    made = make_crew(network, plan, settings, 16)
    assert made is not None
    pixels = rng.integers(0, 256, (3, 17, 23, 3), np.uint8)
    for one in made.networks:
        for got, expected in zip(one.run(pixels), network.run(pixels), strict=True):
            assert np.abs(got - expected).max() <= 1e-6 * np.abs(expected).max()


def test_one_core_has_no_crew(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_pays", lambda *_: True)
    plan, settings = plan_of(rng), Settings(threads=1)
    assert make_crew(Network(plan, settings, "cpu"), plan, settings, 16) is None


class Free:
    """A network whose runs take nothing."""

    channels = 1

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        return [pixels]


def decided(monkeypatch: pytest.MonkeyPatch, gains: Sequence[float]) -> tuple[bool, int]:
    """Decide by pairs that gain so much, on a clock that says so. Returns the decision, and how many pairs it took."""
    pairs = 0

    def times() -> Iterator[float]:
        nonlocal pairs
        yield from (0.0, 1.0) * 2  # what allocates, and one run
        for gain in gains:
            pairs += 1
            yield from (0.0, gain, 0.0, 1.0)

    clock = times()
    monkeypatch.setattr(crew.time, "perf_counter", lambda: next(clock))
    networks: Any = [Free(), Free()]
    with ThreadPoolExecutor(2) as threads:
        return crew._pays(networks[0], networks, threads, 16), pairs


def test_pairs_decide_by_their_median(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is clear, as all eleven would; some of them are not run."""
    for _ in range(50):
        gains = rng.uniform(0.95, 1.25, 11).tolist()
        pays, pairs = decided(monkeypatch, gains)
        assert pays == (np.median(gains) >= 1.1)
        assert 6 <= pairs <= 11


def test_few_clear_gains_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(monkeypatch, [1.9, 1.7]) == (True, 2)
    assert decided(monkeypatch, [1.5, 1.4, 1.5]) == (True, 3)
    assert decided(monkeypatch, [0.5, 1.9, 0.4, 2.0]) == (True, 4)
    assert decided(monkeypatch, [0.5] * 6) == (False, 6)

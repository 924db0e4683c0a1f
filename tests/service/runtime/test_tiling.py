"""Whether a graph can be cut is found once, by whoever asks first, and never costs the model."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from graphs.anysize.plan import Obstacle, TiledPlan
from service.runtime.tiling import Tiling

PLAN = TiledPlan(None, None, ())  # type: ignore[arg-type]
LIGHT, HEAVY = 2**20, 2**30


class Counted:
    """A cut that counts how often it is asked for, and in which threads."""

    def __init__(self, gives: Any) -> None:
        self.threads: list[threading.Thread] = []
        self._gives = gives

    def __call__(self) -> Any:
        self.threads.append(threading.current_thread())
        return self._gives


def test_crowd_that_asks_first_has_one_cut() -> None:
    cut = Counted(PLAN)
    tiling = Tiling(cut, LIGHT, name="m/1")
    assert cut.threads == []
    tiling.begin()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: tiling.reasons, range(32))) == [()] * 32
    assert len(cut.threads) == 1


def test_event_loop_does_not_cut() -> None:
    cut = Counted(PLAN)
    asyncio.run(Tiling(cut, LIGHT, name="m/1").know())
    assert len(cut.threads) == 1
    assert cut.threads[0] is not threading.main_thread()


def test_heavy_graph_is_cut_at_load() -> None:
    cut = Counted((Obstacle("n", "Resize", "its scale is not known"),))
    tiling = Tiling(cut, HEAVY, name="m/1")
    assert len(cut.threads) == 1
    assert tiling.reasons == ("Resize 'n': its scale is not known",)
    assert len(cut.threads) == 1


def test_graphs_are_cut_until_the_sessions_are_made() -> None:
    """Making them may fail, and is tried again with the next image."""
    cut = Counted(PLAN)
    tiling = Tiling(cut, LIGHT, name="m/1")
    assert tiling.reasons == ()
    assert tiling.graphs() is tiling.graphs() is PLAN
    tiling.forget()
    assert tiling.reasons == ()
    assert len(cut.threads) == 3


def test_fault_of_the_compiler_is_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    def cut() -> TiledPlan:
        raise AssertionError("not thought of")

    (reason,) = Tiling(cut, HEAVY, name="m/1").reasons
    assert "the server's log says why" in reason
    assert "not thought of" in caplog.text

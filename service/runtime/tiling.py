"""Whether a model's graph can be cut for tiles: found at load where its weights are many, else when it serves or is asked.

To cut a graph takes as long as all else that the compiler does, and nobody asks before the model is there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from graphs.anysize.plan import Obstacle, TiledPlan

log = logging.getLogger(__name__)

_HEAVY_BYTES = 2**23
"""A graph of more is cut at load: what is kept of it beyond that stays in the process for good, as all that the start has made."""

_turn = threading.Lock()
"""One model's graph is cut at a time: several would only keep the interpreter from who answers requests."""


class Tiling:
    """What stands against tiles, for any thread; and the graph, cut anew for who makes its sessions."""

    def __init__(self, cut: Callable[[], TiledPlan | tuple[Obstacle, ...]], size: int, *, name: str) -> None:
        """Cut a heavy graph; a light one later.

        Args:
            cut: of the model's plan. It is called twice, for the answer and for the graphs, which are not held between.
            size: of the graph in bytes.
            name: of the model, for the log.
        """
        self._cut: Callable[[], TiledPlan | tuple[Obstacle, ...]] | None = cut
        self._name = name
        self._found: tuple[str, ...] | None = None
        if size > _HEAVY_BYTES:
            self._find()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there are no tiles; empty where there are. The first who asks waits until it is found."""
        return self._find() if self._found is None else self._found

    def _find(self) -> tuple[str, ...]:
        with _turn:
            if self._found is None:
                assert self._cut is not None  # nobody makes sessions before the answer is known
                try:
                    self._found = _reasons(self._cut())
                except Exception:  # the compiler's own fault must not cost the model
                    log.exception("model %s: its graph cannot be cut for tiles", self._name)
                    self._found = ("its graph could not be cut; the server's log says why",)
                if self._found:
                    self._cut = None
            return self._found

    def begin(self) -> None:
        """Find it in a thread; does not block."""
        if self._found is None:
            threading.Thread(target=self._find, name=f"tiling-{self._name}", daemon=True).start()

    async def know(self) -> None:
        """Find it in a thread, and wait; for the event loop, before it asks."""
        if self._found is None:
            await asyncio.to_thread(self._find)

    def graphs(self) -> TiledPlan:
        """Cut the graph; where there are tiles, until `forget`."""
        assert self._cut is not None
        plan = self._cut()
        assert isinstance(plan, TiledPlan)
        return plan

    def forget(self) -> None:
        """Let the graph go: its sessions are made."""
        self._cut = None


def _reasons(found: TiledPlan | Sequence[Obstacle]) -> tuple[str, ...]:
    return () if isinstance(found, TiledPlan) else tuple(map(str, found))

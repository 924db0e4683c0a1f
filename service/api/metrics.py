"""GET /metrics: what a Prometheus reads. Everything is counted where it happens; here it is only read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from service.api.state import State, get_state

router = APIRouter(tags=["health"])


class StateCollector(Collector):
    """Reads the queues and the cache of pooling graphs. Labels are of what is loaded or was refused, so their number is bounded."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Give every metric with its value now."""
        waiting = GaugeMetricFamily(
            "poolserve_waiting_requests", "Admitted requests not answered yet.", labels=["queue", "version"]
        )
        refused = CounterMetricFamily(
            "poolserve_refused_requests", "Requests answered 429.", labels=["queue", "version"]
        )
        models = self._state.repository.served
        queues = [(model.name, model.version, model.admission) for model in models]
        queues += [(f"{m.name}/tiles", m.version, m.tiles.admission) for m in models if m.tiles is not None]
        for name, version, admission in [*queues, ("pool", "1", self._state.pool_admission)]:
            waiting.add_metric([name, version], admission.waiting)
            refused.add_metric([name, version], admission.refused)
        yield waiting
        yield refused
        yield from self._versions()
        yield from self._runs()
        yield from self._tiles()
        sessions = self._state.pooler.sessions
        yield GaugeMetricFamily("poolserve_pooling_sessions", "Compiled pooling graphs kept.", len(sessions))
        yield CounterMetricFamily("poolserve_pooling_session_hits", "Graphs that were there.", sessions.hits)
        yield CounterMetricFamily("poolserve_pooling_session_misses", "Graphs that were built.", sessions.misses)

    def _versions(self) -> Iterator[Metric]:
        repository = self._state.repository
        versions = GaugeMetricFamily(
            "poolserve_model_versions", "Versions of models, by how they stand.", labels=["model", "state"]
        )
        standings = Counter((row.name, row.state) for row in repository.standings())
        for name in sorted({name for name, _ in standings}):
            for state in ("READY", "LOADING", "UNLOADING", "UNAVAILABLE"):
                versions.add_metric([name, state.lower()], standings[name, state])
        broken = GaugeMetricFamily(
            "poolserve_model_broken",
            "1 for a version whose files cannot be loaded; the index says why.",
            labels=["model", "version"],
        )
        for name, refusals in repository.refused.items():
            for version in refusals:
                broken.add_metric([name, version], 1)
        loads = CounterMetricFamily("poolserve_model_loads", "Versions loaded, or not.", labels=["model", "result"])
        for (name, result), count in sorted(repository.loads.items()):
            loads.add_metric([name, result], count)
        yield versions
        yield broken
        yield loads

    def _runs(self) -> Iterator[Metric]:
        batches = CounterMetricFamily(
            "poolserve_batches", "Runs of models: of one size, or on a canvas.", labels=["model", "version", "kind"]
        )
        pixels = CounterMetricFamily(
            "poolserve_canvas_pixels",
            "Pixels that were run: of images, or wasted beside them.",
            labels=["model", "version", "use"],
        )
        for model in self._state.repository.served:
            tally, which = model.tally, (model.name, model.version)
            batches.add_metric([*which, "plain"], tally.plain)
            batches.add_metric([*which, "ragged"], tally.ragged)
            pixels.add_metric([*which, "used"], tally.pixels_used)
            pixels.add_metric([*which, "wasted"], tally.pixels_wasted)
        yield batches
        yield pixels

    def _tiles(self) -> Iterator[Metric]:
        done = CounterMetricFamily("poolserve_tiles", "Tiles that have run.", labels=["model", "version"])
        waiting = GaugeMetricFamily(
            "poolserve_waiting_tiles", "Tiles of admitted images, still to run.", labels=["model", "version"]
        )
        for model in self._state.repository.served:
            if model.tiles is not None:
                done.add_metric([model.name, model.version], model.tiles.done)
                waiting.add_metric([model.name, model.version], model.tiles.waiting)
        yield done
        yield waiting


@router.get(
    "/metrics",
    summary="For Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
)
async def metrics(state: Annotated[State, Depends(get_state)]) -> Response:
    """Queues (by model, and `pool`), refusals, batches and their pixels, and the cache of pooling graphs, of this process."""
    for model in state.repository.served:
        await model.tiling.know()
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

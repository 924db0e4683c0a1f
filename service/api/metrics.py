"""GET /metrics: what a Prometheus reads. Everything is counted where it happens; here it is only read."""

from __future__ import annotations

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
    """Reads the queues and the cache of pooling graphs. Labels are names of loaded models only, so their number is bounded."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Give every metric with its value now."""
        waiting = GaugeMetricFamily(
            "poolserve_waiting_requests", "Admitted requests not answered yet.", labels=["queue"]
        )
        refused = CounterMetricFamily("poolserve_refused_requests", "Requests answered 429.", labels=["queue"])
        models = self._state.repository.models
        queues = {name: model.admission for name, model in models.items()}
        queues |= {f"{name}/tiles": model.tiles.admission for name, model in models.items() if model.tiles is not None}
        for name, admission in {**queues, "pool": self._state.pool_admission}.items():
            waiting.add_metric([name], admission.waiting)
            refused.add_metric([name], admission.refused)
        yield waiting
        yield refused
        yield from self._runs()
        yield from self._tiles()
        sessions = self._state.pooler.sessions
        yield GaugeMetricFamily("poolserve_pooling_sessions", "Compiled pooling graphs kept.", len(sessions))
        yield CounterMetricFamily("poolserve_pooling_session_hits", "Graphs that were there.", sessions.hits)
        yield CounterMetricFamily("poolserve_pooling_session_misses", "Graphs that were built.", sessions.misses)

    def _runs(self) -> Iterator[Metric]:
        batches = CounterMetricFamily(
            "poolserve_batches", "Runs of models: of one size, or on a canvas.", labels=["model", "kind"]
        )
        pixels = CounterMetricFamily(
            "poolserve_canvas_pixels",
            "Pixels that were run: of images, or wasted beside them.",
            labels=["model", "use"],
        )
        for name, model in self._state.repository.models.items():
            tally = model.tally
            batches.add_metric([name, "plain"], tally.plain)
            batches.add_metric([name, "ragged"], tally.ragged)
            pixels.add_metric([name, "used"], tally.pixels_used)
            pixels.add_metric([name, "wasted"], tally.pixels_wasted)
        yield batches
        yield pixels

    def _tiles(self) -> Iterator[Metric]:
        done = CounterMetricFamily("poolserve_tiles", "Tiles that have run.", labels=["model"])
        waiting = GaugeMetricFamily(
            "poolserve_waiting_tiles", "Tiles of admitted images, still to run.", labels=["model"]
        )
        for name, model in self._state.repository.models.items():
            if model.tiles is not None:
                done.add_metric([name], model.tiles.done)
                waiting.add_metric([name], model.tiles.waiting)
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
    registry = CollectorRegistry()
    registry.register(StateCollector(state))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

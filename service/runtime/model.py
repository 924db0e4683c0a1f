"""A model that is served: its card, its compiled graphs, its network, its queue. `infer` is the one way in."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphs.anysize.compile import compile_plan
from graphs.anysize.plan import Plan, TrunkGeometry
from graphs.front import Geometry
from service.codecs.rows import Rows
from service.errors import InvalidImage
from service.runtime.admission import WORK_PER_IMAGE, Admission
from service.runtime.batcher import Answer, Batcher
from service.runtime.broken import BrokenModel
from service.runtime.canvas import Tally, total
from service.runtime.configuration import Configuration
from service.runtime.crew import make_crew
from service.runtime.deadline import answered_by
from service.runtime.features import Features
from service.runtime.grouping import Grouping
from service.runtime.handover import Shortness, may_be_short, measure_shortness
from service.runtime.network import Network
from service.runtime.own_input import OwnInput
from service.runtime.owner import Retiring, retire_all
from service.runtime.ranking import order, probabilities, rank_batch
from service.runtime.session import Provider, Session
from service.runtime.source import Source
from service.runtime.statistics import Statistics
from service.runtime.tick import Tick
from service.runtime.tiles import Tiles, make_tiles
from service.runtime.tiling import Tiling
from service.runtime.warmup import first_runs, measure
from service.settings import Settings

log = logging.getLogger(__name__)

_WARM_SIDE = 64
"""Side of the warm-up picture in pixels, where the graph fixes none and takes one as small."""


class Model:
    """One version of one model, loaded.

    Attributes:
        name: in the repository.
        version: a number, as text.
        card: what it says of itself.
        configuration: what its config.pbtxt says; None where it has none.
        geometry: sizes that its graph fixes.
        trunk: how its features lie in the image; None where the compiler could not follow its graph.
        min_height: smallest image in pixels, by the card and by the graph.
        min_width: as min_height.
        ragged: whether images of different sizes share a run where that pays.
        ragged_reasons: why they do not; empty where they do.
        classes: K, width of the output that is classified.
        label_names: K names: the card's labels, or the indices where it has none.
        network: what runs it.
        scores_place: of the output that is classified, among the network's.
        embedding_place: of the one that the card calls the embedding; None where there is none.
        own_input: for numbers as the file takes them.
        admission: its queue in numbers.
        statistics: what it has done.
        remembered: what endpoints keep of requests to it; it goes when the model goes.
        features: what its head pools, and the head by itself.
        tiling: whether an image can be cut into tiles, and why not.
        fingerprint: of the files that it was loaded from, for whoever looks for changes.

    Its threads end when nobody holds it any more, so that who found it before another version did is answered, however late he
    comes to the queue. So nothing that it holds may hold it.
    """

    fingerprint: Hashable = None

    def __init__(
        self,
        name: str,
        version: str,
        path: Path,
        settings: Settings,
        provider: Provider,
        *,
        configuration: Configuration | None = None,
    ) -> None:
        """Load, compile, build the sessions, warm them up, measure them.

        Raises:
            BrokenModel: the file cannot be read, or its graph does not fit its card, or it fails its warm-up.
            ProviderError: it would not run where it must.
        """
        self.name, self.version, self.configuration = name, version, configuration
        source = Source(path, configuration)
        graph, self.card = source.read()
        try:
            self.own_input = OwnInput(source, graph, self.card, settings, provider, name=f"{name}/{version}")
            self.features = Features(source, graph, self.card, settings, provider, name=f"{name}/{version}")
            plan = compile_plan(graph, self.card)
            self.network = Network(plan, settings, provider)
            self.scores_place = self._find_output()
            names = list(self.network.outputs)
            self.embedding_place = names.index(self.card.embedding) if self.card.embedding in names else None
        except ValueError as error:  # FrontError is one
            raise BrokenModel(str(error), path) from error
        self.geometry: Geometry = self.network.fixed
        self._max_batch = self.geometry.batch or source.max_batch
        self.trunk: TrunkGeometry | None = plan.geometry
        self.min_height = max(self.card.min_height, self.trunk.min_height if self.trunk else 1)
        self.min_width = max(self.card.min_width, self.trunk.min_width if self.trunk else 1)
        rate = self._warm_up(path)
        self.label_names: Sequence[str] = self.card.labels or [str(i) for i in range(self.classes)]
        self.admission = Admission(rate, max_waiting=settings.max_queue)
        self.statistics = Statistics()
        self.remembered: OrderedDict[bytes, Any] = OrderedDict()
        self._batcher = self._queue(plan, settings)
        self._short: Shortness | None = None  # what of it runs on the event loop
        self._tick: Tick | None = None
        if provider == "cpu":
            self._run_on_loop(graph, plan, settings)
        self.network.forget()
        self.tiling = Tiling(plan.cut, self.network.plain_bytes, name=f"{name}/{version}")
        self._tiles: Tiles | None = None
        if self.trunk is not None:
            self._tiles = make_tiles(self.tiling, self.trunk, settings, provider, name=f"{name}/{version}", rate=rate)
        queues: list[Retiring] = [self._batcher, self.own_input, self.features, *([self._tiles] if self._tiles else [])]
        weakref.finalize(self, retire_all, queues).atexit = False

    def _find_output(self) -> int:
        names = list(self.network.outputs)
        wanted = self.card.output or ("logits" if "logits" in names else names[0])
        if wanted not in names:
            raise ValueError(f"the card's output is {wanted!r}, the graph has {names}")
        return names.index(wanted)

    def _warm_up(self, path: Path) -> float:
        """Run once to allocate and once to measure; both must succeed. Returns work per second (admission.py)."""
        height = self.geometry.height or max(_WARM_SIDE, self.min_height)
        width = self.geometry.width or max(_WARM_SIDE, self.min_width)
        try:
            outputs, elapsed_s = first_runs(self.network, height, width)
        except Exception as error:  # onnxruntime's exceptions have no common root of their own
            raise BrokenModel(f"its warm-up on {height}×{width} pixels failed: {error}", path) from error
        self._warmed = height, width, elapsed_s
        output, images = outputs[self.scores_place], self.geometry.batch or 1
        if output.ndim != 2 or len(output) != images:
            raise BrokenModel(
                f"expected scores (N,K), output {self.network.outputs[self.scores_place]!r} is {output.shape}", path
            )
        self.classes = output.shape[1]
        if self.card.labels and len(self.card.labels) != self.classes:
            raise BrokenModel(f"the card has {len(self.card.labels)} labels, the output {self.classes} classes", path)
        return images * (height * width + WORK_PER_IMAGE) / elapsed_s

    def _queue(self, plan: Plan, settings: Settings) -> Batcher:
        """Measure what runs cost, and make the queue that groups images by it."""
        name, smallest = f"{self.name}/{self.version}", max(self.min_height, self.min_width)
        crew = make_crew(self.network, plan, settings, smallest)
        costs, reason = measure(self.network, plan.ragged, smallest, crew)
        self.ragged = costs is not None and costs.ragged is not None
        self.ragged_reasons = tuple(map(str, plan.ragged_obstacles)) or ((reason,) if reason else ())
        lanes = None if crew is None else crew.lanes(name)
        return Batcher(
            self.network.run,
            name=name,
            grouping=Grouping(costs, settings.max_batch_pixels, self._max_batch, lanes=lanes.count if lanes else 1),
            run_ragged=self.network.run_ragged,
            lanes=lanes,
            max_waiting=settings.max_queue * settings.max_images,  # admission lets no more in
        )

    def _run_on_loop(self, graph: ir.Model, plan: Plan, settings: Settings) -> None:
        """Measure whether runs are shorter than handing them to a thread; if so, give the event loop sessions of one thread."""
        if not may_be_short(self.network, *self._warmed):
            return
        network = Network(plan, settings.model_copy(update={"threads": 1}), "cpu", like=self.network)
        short = measure_shortness(network, max(self.min_height, self.min_width))
        if short is None:
            return
        self._short = short
        ranked = partial(rank_batch, place=self.scores_place, activation=self.card.activation)
        self._tick = Tick(
            lambda pixels: ranked(network.run(pixels)),
            name=f"{self.name}/{self.version}",
            cost=lambda shape: short.image_s(shape[0] * shape[1]),
            max_batch=self._max_batch,
            max_waiting=settings.max_queue * settings.max_images,
        )
        self.own_input.run_at_once(graph, short, ranked)
        log.info("model %s: images of up to %d pixels run on the event loop", self.name, short.max_pixels)

    @property
    def tiles(self) -> Tiles | None:
        """The queue of images that are too large for one canvas; None where it cannot tile. May wait: see `tiling`."""
        return None if self._tiles is None or self.tiling.reasons else self._tiles

    def tick_for(self, height: int, width: int) -> Tick | None:
        """Give what runs pictures of a size on the event loop; None where that would hold it too long."""
        return self._tick if self._short is not None and height * width <= self._short.max_pixels else None

    def start(self) -> None:
        """Start the threads that own the sessions."""
        self._batcher.start()
        self.tiling.begin()
        if self._tiles is not None:
            self._tiles.start()

    def stop(self) -> None:
        """Finish what is queued, then end the threads; blocks."""
        if self._tiles is not None:
            self._tiles.stop()
        self._batcher.stop()
        self.own_input.stop()
        self.features.stop()

    @property
    def alive(self) -> bool:
        """Whether the owner threads are there to answer."""
        return self._batcher.alive and self.features.alive and (self._tiles is None or self._tiles.alive)

    @property
    def session(self) -> Session:
        """The session of the plain graph."""
        return self.network.session

    @property
    def tally(self) -> Tally:
        """What has run since the start."""
        ticks = [] if self._tick is None else [self._tick.tally]
        return total([self._batcher.tally, *ticks, *self.own_input.tallies(), *self.features.tallies()])

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image that the graph cannot take.

        Raises:
            InvalidImage: 422; says the size that is needed and the one that came.
        """
        fixed_height, fixed_width = self.geometry.height or height, self.geometry.width or width
        if (height, width) != (fixed_height, fixed_width):
            raise InvalidImage(
                f"model {self.name} takes exactly {fixed_width}×{fixed_height} pixels (its graph fixes them), got {width}×{height}"
            )
        if height < self.min_height or width < self.min_width:
            raise InvalidImage(
                f"model {self.name} needs at least {self.min_width}×{self.min_height} pixels, got {width}×{height}"
            )

    async def infer(self, image: np.ndarray, deadline: float) -> Answer:
        """Run one image; its outputs are in the order of `network.outputs`.

        Args:
            image: uint8 (H,W,C), C as the card's channels, of a size that `check_size` accepts.
            deadline: on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: 504. InternalError: 500. Overloaded: 429.
        """
        tick = self.tick_for(*image.shape[:2])
        if tick is not None and tick.has_room(image.shape):
            return await tick.submit(image, deadline)
        return await self._batcher.submit(image, deadline)

    async def infer_tiles(self, rows: Rows, deadline: float) -> Answer:
        """Run one image tile by tile, where there are `tiles`; its outputs are those of `infer`.

        Args:
            rows: of an image of a size that `check_size` accepts; C as the card's channels.
            deadline: on the clock of `time.monotonic`.

        Raises:
            PayloadTooLarge: 413. InvalidImage: 422. DeadlineExceeded: 504. InternalError: 500.
        """
        assert self.tiles is not None  # the caller has asked
        async with answered_by(deadline):
            return await self.tiles.submit(rows, deadline)

    def scores(self, answer: Answer) -> np.ndarray:
        """The classified output of one image, (K,), as the graph gives it."""
        scores: np.ndarray = answer.outputs[self.scores_place]
        return scores

    def ranking(self, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of one image, (K,) float32, and the classes from the most probable on, (K,) int64."""
        if len(answer.outputs) > len(self.network.outputs):  # its batch was ranked together
            return answer.outputs[-2], answer.outputs[-1]
        p = probabilities(self.scores(answer), self.card.activation)
        return p, order(p)

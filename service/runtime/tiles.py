"""Images too large for one canvas: cut into tiles, run tile by tile, the states merged, the head run once.

A thread of its own does it, below the others' priority: a gigapixel takes minutes, and a small image that comes meanwhile has the
queue and the session it always has, and the cores first. Images take turns, a batch of tiles each. What is held of an image is a
strip of it, as wide as it is stored and as high as a canvas; its rows are decoded when their turn comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphs.anysize.plan import TrunkGeometry
from graphs.anysize.states import Merger
from service.codecs.header import ImageHeader
from service.codecs.rows import Rows
from service.errors import InternalError, PayloadTooLarge, ServiceError
from service.runtime import heap
from service.runtime.admission import Admission
from service.runtime.batcher import Answer
from service.runtime.grid import Grid, TooLarge, cut
from service.runtime.owner import Owner, settle
from service.runtime.session import Provider
from service.runtime.tile_batches import tile_batches
from service.runtime.tile_course import Course
from service.runtime.tile_graphs import TileGraphs, load_tile_graphs
from service.runtime.tiling import Tiling
from service.settings import Settings

log = logging.getLogger(__name__)

_NICE = 10
"""Below the rest of the process: where both want the cores it gets a tenth of them (Linux weighs 10 steps with 110 : 1024)."""

_AT_ONCE = 2
"""Images whose strips are held at the same time; the others wait for theirs to be the turn."""

_LOG_EVERY_S = 10.0


@dataclass(frozen=True)
class Limits:
    """What bounds the memory of tiles.

    Attributes:
        canvas_pixels: of one tile with its halo; an image of no more is not cut.
        batch_pixels: of tiles that run together, where they are smaller.
        strip_pixels: of an image that are held decoded.
    """

    canvas_pixels: int
    batch_pixels: int
    strip_pixels: int


class Tiles(Owner[Course]):
    """The queue of one model's large images, and the thread that runs them.

    Attributes:
        admission: this queue in numbers; work is pixels, as in the other.
        done: tiles that have run.
        waiting: tiles, of admitted images, that have not.
    """

    def __init__(
        self,
        load: Callable[[], TileGraphs],
        geometry: TrunkGeometry,
        limits: Limits,
        *,
        name: str,
        admission: Admission,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            load: builds the sessions; called when the first image comes, from the thread. Most models never see one, and
                a second session takes the weights' memory again and as long to start.
            geometry: of the trunk.
            limits: what bounds the memory.
            name: of the model, for the thread and the log.
            admission: this queue in numbers.
            clock: seconds, that of the deadlines.
        """
        super().__init__(f"tiles-{name}")
        self.admission = admission
        self.done = self.waiting = 0
        self._load = load
        self._graphs: TileGraphs | None = None
        self._geometry = geometry
        self._limits = limits
        self._name = name
        self._clock = clock

    def work(self, rows: Rows) -> int:
        """Count the pixels of an image that is to be cut, for the admission: those of its halos too."""
        return self.cut(rows.header).canvas_pixels

    def cut(self, header: ImageHeader) -> Grid:
        """Cut an image.

        Raises:
            PayloadTooLarge: 413; not even the smallest tiles keep to the limits.
        """
        try:
            return cut(
                header.height,
                header.width,
                self._geometry,
                max_canvas=self._limits.canvas_pixels,
                max_strip=self._limits.strip_pixels,
                stored_as_columns=header.orientation >= 5,
            )
        except TooLarge as error:
            raise PayloadTooLarge(str(error)) from error

    async def submit(self, rows: Rows, deadline: float) -> Answer:
        """Queue one image and wait for its answer; cancelling this coroutine ends its course after the batch that runs.

        Args:
            rows: of the image; their errors come out here.
            deadline: on the clock.

        Raises:
            PayloadTooLarge: 413; it cannot be cut. InvalidImage: 422; its rows are damaged.
            DeadlineExceeded: 504; the deadline passed, or would by far. InternalError: 500.
        """
        grid = self.cut(rows.header)
        course = Course(rows, grid, deadline, asyncio.get_running_loop().create_future(), self._clock())
        self._arrivals.put(course)
        try:
            return await course.future
        finally:
            # An error remembers this frame, and the future remembers the error: a ring around the image.
            del course, rows

    def _own(self) -> None:
        if sys.platform == "linux":  # elsewhere the whole process would be meant
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # threads begun here inherit it
        courses: deque[Course] = deque()
        open_ = True
        while open_ or courses:
            if not courses:
                open_ = self._arrive(self._arrivals.get(), courses)
            while open_ and not self._arrivals.empty():
                open_ = self._arrive(self._arrivals.get(), courses)
            if courses:
                self._take_turns(courses)
                if not courses:
                    self._release()

    def _arrive(self, course: Course | None, courses: deque[Course]) -> bool:
        if course is None:
            return False
        self.waiting += course.grid.tiles
        courses.append(course)
        return True

    def _take_turns(self, courses: deque[Course]) -> None:
        """Run a batch of each of the first; no name for any of them outlives this, and so nothing of its image."""
        for course in list(courses)[:_AT_ONCE]:
            if self._advance(course):
                courses.remove(course)
                self.waiting -= course.grid.tiles - course.done

    def _release(self) -> None:
        """Give back what only large images need."""
        try:
            if self._graphs is not None:
                self._graphs.release()
        except Exception:
            log.exception("model %s cannot give back the memory of its tiles", self._name)
        heap.trim()

    def _advance(self, course: Course) -> bool:
        """Run one batch. Returns whether the course has ended, well or not."""
        result: Answer | ServiceError
        try:
            if course.future.done():  # its client went away
                course.close()
                return True
            now = self._clock()
            if course.steps is None:
                course.started = course.logged_at = now
                course.steps = self._run(course)
            course.check_time(now)
            next(course.steps)
        except StopIteration as end:
            ended = self._clock()
            result = Answer(end.value, course.started - course.queued_at, ended - course.started, 1)
            log.info("model %s: %s in %.1f s", self._name, course.words(), result.run_s)
        except ServiceError as error:
            result = _bare(error)
        except Exception:
            log.exception("model %s failed on %s", self._name, course.words())
            result = InternalError()
        else:
            self._report(course)
            return False
        course.close()
        settle([(course.future, result)])
        return True

    def _run(self, course: Course) -> Generator[None, None, Sequence[np.ndarray]]:
        """Take an image from its rows to the outputs, a batch of tiles at each step."""
        if self._graphs is None:
            self._graphs = self._load()
            del self._load  # and with it the graphs from which the sessions were made
            heap.trim()
        graphs = self._graphs
        merger = Merger(graphs.states)
        for batch in tile_batches(course.rows, course.grid, self._limits.batch_pixels):
            found = graphs.trunk(batch.pixels, batch.extents, batch.owned)
            for i in range(batch.tiles):
                merger.add({name: array[i : i + 1] for name, array in found.items()})
            course.done += batch.tiles
            self.done += batch.tiles
            self.waiting -= batch.tiles
            yield
        extent = np.array([(0, 0, course.rows.header.height, course.rows.header.width)], np.int64)
        return [output[0] for output in graphs.head(merger.result(), extent)]

    def _report(self, course: Course) -> None:
        now = self._clock()
        if now - course.logged_at >= _LOG_EVERY_S:
            course.logged_at = now
            log.info("model %s: %s, %.0f s", self._name, course.words(), now - course.started)


def make_tiles(
    tiling: Tiling, geometry: TrunkGeometry, settings: Settings, provider: Provider, *, name: str, rate: float
) -> Tiles:
    """Make the queue of a model.

    Args:
        tiling: of its graph.
        geometry: of its trunk.
        settings: for the limits.
        provider: where the trunk runs.
        name: of the model and its version.
        rate: of the model, work per second (admission.py).
    """
    return Tiles(
        partial(load_tile_graphs, tiling, geometry, settings, provider),
        geometry,
        Limits(settings.max_canvas_pixels, settings.max_batch_pixels, settings.max_pixels),
        name=name,
        admission=Admission(rate, max_waiting=settings.max_queue),
    )


def _bare(error: ServiceError) -> ServiceError:
    """Cut an error off from the frames it came through: they hold the image, and the error lives on with its request."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

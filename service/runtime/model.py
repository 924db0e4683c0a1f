"""A model that is served: its card, its compiled graph, its session, its queue. `infer` is the one way in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphs.card import ModelCard
from graphs.front import PIXELS, Geometry, attach_front
from service.errors import DeadlineExceeded, InvalidImage
from service.runtime.admission import WORK_PER_IMAGE, Admission
from service.runtime.batcher import Answer, Batcher
from service.runtime.session import Provider, Session
from service.settings import Settings

_WARM_SIDE = 64
"""Side of the warm-up picture in pixels, where the graph fixes none and takes one as small."""


class BrokenModel(Exception):
    """A model that cannot be served; the message says which file and why."""


def read_model(path: Path) -> tuple[ir.Model, ModelCard]:
    """Read a graph and its card: model.json beside the file if there is one, else the file's own metadata.

    Raises:
        BrokenModel: no ONNX file, no card, a card that is not valid, or one that does not fit the graph's outputs.
    """
    try:
        graph = ir.load(path)
        ir.external_data.load_to_model(graph)
    except Exception as error:  # protobuf's, onnx-ir's and the file system's errors alike
        raise BrokenModel(f"{path}: not a readable ONNX file: {error}") from error
    beside = path.with_name("model.json")
    try:
        card = ModelCard.model_validate_json(beside.read_bytes()) if beside.exists() else ModelCard.read(graph)
    except ValueError as error:
        raise BrokenModel(f"{beside if beside.exists() else path}: its card is not valid: {error}") from error
    if card is None:
        raise BrokenModel(
            f"{path}: has no card. Put a model.json beside it that says how pixels become its input, such as "
            '{"labels": ["cat", "dog"], "preprocessing": {"channels": "RGB", "scale": 0.00392157, '
            '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}'
        )
    return graph, card


class Model:
    """One version of one model, loaded.

    Attributes:
        name: in the repository.
        version: a number, as text.
        card: what it says of itself.
        geometry: sizes that its graph fixes.
        classes: K, width of the output that is classified.
        label_names: K names: the card's labels, or the indices where it has none.
        session: what runs it.
        admission: its queue in numbers.
    """

    def __init__(self, name: str, version: str, path: Path, settings: Settings, provider: Provider) -> None:
        """Load, put the front on, build the session, warm it up, measure it.

        Raises:
            BrokenModel: the file cannot be read, or its graph does not fit its card, or it fails its warm-up.
            ProviderError: it would not run where it must.
        """
        self.name, self.version = name, version
        self._max_batch_pixels = settings.max_batch_pixels
        graph, self.card = read_model(path)
        try:
            self.geometry: Geometry = attach_front(graph, self.card)
            data = ir.to_proto(graph).SerializeToString()
            self.session = Session(data, provider=provider, device_id=settings.device_id, threads=settings.threads)
            self._output = self._find_output()
        except ValueError as error:  # FrontError is one
            raise BrokenModel(f"{path}: {error}") from error
        rate = self._warm_up(path)
        self.label_names: Sequence[str] = self.card.labels or [str(i) for i in range(self.classes)]
        self.admission = Admission(rate, max_waiting=settings.max_queue)
        self._batcher = Batcher(
            self._run,
            name=f"{name}/{version}",
            max_batch_pixels=settings.max_batch_pixels,
            max_batch=self.geometry.batch,
        )

    def _find_output(self) -> int:
        names = list(self.session.outputs)
        wanted = self.card.output or ("logits" if "logits" in names else names[0])
        if wanted not in names:
            raise ValueError(f"the card's output is {wanted!r}, the graph has {names}")
        return names.index(wanted)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        count = len(pixels)
        missing = (self.geometry.batch or 0) - count
        if missing > 0:  # the graph fixes its batch: fill it up with the last image, and drop what that gives
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])  # (N,H,W,C)
        huge = pixels.shape[0] * pixels.shape[1] * pixels.shape[2] > self._max_batch_pixels
        return [output[:count] for output in self.session.run({PIXELS: pixels}, shrink=huge)]

    def _warm_up(self, path: Path) -> float:
        """Run once to allocate and once to measure; both must succeed. Returns work per second (admission.py)."""
        height = self.geometry.height or max(_WARM_SIDE, self.card.min_height)
        width = self.geometry.width or max(_WARM_SIDE, self.card.min_width)
        shape = (self.geometry.batch or 1, height, width, self.card.preprocessing.channel_count)
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        try:
            self._run(pixels)
            started = time.monotonic()
            output = self._run(pixels)[self._output]
            elapsed_s = time.monotonic() - started
        except Exception as error:  # onnxruntime's exceptions have no common root of their own
            raise BrokenModel(
                f"{path}: its warm-up on {pixels.shape[1]}×{pixels.shape[2]} pixels failed: {error}"
            ) from error
        if output.ndim != 2 or len(output) != shape[0]:
            raise BrokenModel(
                f"{path}: expected scores (N,K), output {self.session.outputs[self._output]!r} is {output.shape}"
            )
        self.classes = output.shape[1]
        if self.card.labels and len(self.card.labels) != self.classes:
            raise BrokenModel(f"{path}: the card has {len(self.card.labels)} labels, the output {self.classes} classes")
        return shape[0] * (height * width + WORK_PER_IMAGE) / max(elapsed_s, 1e-6)

    def start(self) -> None:
        """Start the thread that owns the session."""
        self._batcher.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread; blocks."""
        self._batcher.stop()

    @property
    def alive(self) -> bool:
        """Whether the owner thread is there to answer."""
        return self._batcher.alive

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
        if height < self.card.min_height or width < self.card.min_width:
            raise InvalidImage(
                f"model {self.name} needs at least {self.card.min_width}×{self.card.min_height} pixels, got {width}×{height}"
            )

    async def infer(self, image: np.ndarray, deadline: float) -> Answer:
        """Run one image; its outputs are in the order of `session.outputs`.

        Args:
            image: uint8 (H,W,C), C as the card's channels, of a size that `check_size` accepts.
            deadline: on the clock of `time.monotonic`.

        Raises:
            DeadlineExceeded: 504. InternalError: 500.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._batcher.submit(image, deadline)
        except TimeoutError:
            raise DeadlineExceeded("the time limit passed before the answer was there") from None

    def scores(self, answer: Answer) -> np.ndarray:
        """The classified output of one image, (K,), as the graph gives it."""
        scores: np.ndarray = answer.outputs[self._output]
        return scores

"""What /v1/embed and /v1/heatmap share: pictures to the features of a model, and work on those in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from service.api.documents import IMAGE_BODY
from service.api.images import Upload
from service.api.inference import named, open_images, run_each
from service.api.state import State
from service.errors import DeadlineExceeded, PayloadTooLarge
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.model import Model

T = TypeVar("T")

PICTURE_BODY: dict[str, Any] = {
    **IMAGE_BODY,
    "description": "The content decides what an image is; its Content-Type only helps.",
    "content": {kind: body for kind, body in IMAGE_BODY["content"].items() if kind != "application/x-npy"},
}
"""The body of requests that take pictures only, no numbers."""


async def features_of(
    state: State, model: Model, upload: Upload, ticket: Ticket, deadline: float
) -> tuple[Sequence[np.ndarray], Sequence[Answer], float]:
    """Take pictures to features.

    Returns:
        The pictures, uint8 (H,W,C); an answer for each with the features (C,h,w), float32; and seconds of decoding.

    Raises:
        PayloadTooLarge: 413; a picture that would have to be cut into tiles.
        ServiceError: any other of the tree in errors.py.
    """
    opened, decode_s = await open_images(state, model, upload, deadline)
    pictures = [picture for picture in opened if isinstance(picture, np.ndarray)]
    for place, each in enumerate(opened):
        if not isinstance(each, np.ndarray):
            which = f"images[{place}]: " if upload.many else ""
            raise PayloadTooLarge(
                f"{which}expected at most {state.settings.max_canvas_pixels} pixels (max_canvas_pixels), the image has "
                f"{each.header.width}x{each.header.height}: in tiles there are only the model's own outputs"
            )
    ticket.weigh(sum(picture.shape[0] * picture.shape[1] for picture in pictures), len(pictures))
    return pictures, await run_each([model.features.infer(picture, deadline) for picture in pictures]), decode_s


async def in_thread(state: State, work: Callable[[], T], deadline: float) -> T:
    """Run something in one of the threads that pool tensors.

    Raises:
        DeadlineExceeded: 504; it was not done by the deadline.
    """

    def begin() -> T:
        if time.monotonic() > deadline:  # it waited for a thread too long: do not begin
            raise DeadlineExceeded("the time limit passed before the features were pooled")
        return work()

    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await asyncio.get_running_loop().run_in_executor(state.poolers, begin)
    except TimeoutError:
        raise DeadlineExceeded("the time limit passed before the features were pooled") from None


async def each_in_thread(
    state: State, upload: Upload, works: Sequence[Callable[[], T]], deadline: float
) -> Sequence[T]:
    """Run something for each picture; an error says of which."""
    return await run_each([named(upload, place, in_thread(state, work, deadline)) for place, work in enumerate(works)])

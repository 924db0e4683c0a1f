"""What /v1/embed and /v1/heatmap share: pictures to the features of a model, and work on those in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import Request

from service.api.documents import IMAGE_BODY
from service.api.images import Upload
from service.api.inference import named, open_images, run_each, while_connected
from service.api.state import State
from service.codecs.rows import Rows
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


async def features_of(  # noqa: PLR0917 – the parts of a request
    request: Request,
    state: State,
    model: Model,
    upload: Upload,
    ticket: Ticket,
    deadline: float,
    *,
    refuse_large: str = "",
) -> tuple[Sequence[np.ndarray | Rows], Sequence[Answer], float]:
    """Take pictures to features. Those that are too large for one canvas come last, in tiles.

    Args:
        request: whose pictures they are.
        state: the app's.
        model: that runs.
        upload: the pictures.
        ticket: of the request.
        deadline: on the clock of `time.monotonic`.
        refuse_large: what pictures must be small for, where tiles will not do; goes into the message.

    Returns:
        The pictures, uint8 (H,W,C), or rows where they were too large; an answer for each with the features (C,h,w), float32; and
        seconds of decoding.

    Raises:
        PayloadTooLarge: 413; one that is refused.
        ServiceError: any other of the tree in errors.py. ClientDisconnect: the client went away while tiles were run.
    """
    opened, decode_s = await open_images(state, model, upload, deadline)
    features = model.features
    for place, each in enumerate(opened):
        if isinstance(each, Rows) and refuse_large:
            which = f"images[{place}]: " if upload.many else ""
            most = state.settings.max_canvas_pixels
            raise PayloadTooLarge(
                f"{which}expected at most {most} pixels (max_canvas_pixels), the image has {each.header.width}x"
                f"{each.header.height}: {refuse_large}"
            )
    whole = {place: each for place, each in enumerate(opened) if isinstance(each, np.ndarray)}
    ticket.weigh(sum(picture.shape[0] * picture.shape[1] for picture in whole.values()), len(whole))
    courses = [features.infer(picture, deadline) for picture in whole.values()]
    answers = dict(zip(whole, await run_each(courses), strict=True))
    large = {place: each for place, each in enumerate(opened) if isinstance(each, Rows)}
    if large and model.tiles is not None:
        ticket.move(model.tiles.admission, answered=bool(whole))
        ticket.weigh(sum(model.tiles.work(rows) for rows in large.values()), len(large))
        courses = [named(upload, place, features.infer_tiles(rows, deadline)) for place, rows in large.items()]
        answers.update(zip(large, await while_connected(request, run_each(courses)), strict=True))
    return opened, [answers[place] for place in range(len(opened))], decode_s


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

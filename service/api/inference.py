"""The course of every inference on images: admitted on its headers, read, decoded, run; the endpoints only word the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from service.api.images import Upload, carries_parameters, parse_upload
from service.api.intake import read_body, read_headers
from service.api.state import State
from service.api.timing import server_timing
from service.codecs.header import Channels
from service.codecs.images import decode, read_header
from service.codecs.rows import Rows, open_rows
from service.errors import DeadlineExceeded, InvalidParameter, PayloadTooLarge, ServiceError
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.model import Model

_WATCH_FROM_S = 0.1
"""Below this expected wait nobody watches whether the client is still there: the answer is ready before it would matter."""


def _as_text(value: object) -> object:
    """A version as JSON may have it: 1 is "1", as in a query."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ModelParameters(BaseModel):
    """Which model; every inference endpoint's parameters begin with these."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="Name of the model; may be left out where one is loaded.", examples=["digits"]
    )
    version: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None, description="Version of the model; by default the highest that is served.", examples=["1"]
    )


Sizes = Sequence[tuple[int, int]]
"""Height and width of each image, in pixels."""

P = TypeVar("P", bound=ModelParameters)
T = TypeVar("T")


@dataclass
class Inference(Generic[P]):
    """What was asked and what came out.

    Attributes:
        parameters: from the query and the body together, checked.
        model: that answered.
        sizes: (height, width) of each image as displayed, in pixels.
        answers: one for each image, in order.
        decode_s: seconds of decoding, all images together.
    """

    parameters: P
    model: Model
    sizes: Sizes = ()
    answers: Sequence[Answer] = ()
    decode_s: float = 0.0
    finished_at: float = field(default_factory=time.monotonic)

    def server_timing(self) -> bytes:
        """The `Server-Timing` header: milliseconds; with several images the longest of each stage."""
        answers = self.answers
        encode_s = time.monotonic() - self.finished_at
        queue_s = answers[0].queue_s if len(answers) == 1 else max(answer.queue_s for answer in answers)
        run_s = answers[0].run_s if len(answers) == 1 else max(answer.run_s for answer in answers)
        return server_timing(self.decode_s, queue_s, run_s, encode_s)


Course = Callable[
    [State, Inference[P], Upload, Ticket, float], Coroutine[Any, Any, tuple[Sizes, Sequence[Answer], float]]
]
"""(state, what was asked, images, ticket, deadline) → sizes, an answer for each image, seconds of decoding."""


async def infer_images(request: Request, state: State, parameters: P, course: Course[P] | None = None) -> Inference[P]:
    """Take a request from its headers to the model's outputs.

    Args:
        request: whose images they are.
        state: the app's.
        parameters: of the query.
        course: what is done with the images; None: the model's own outputs.

    Raises:
        ServiceError: any of the tree in errors.py, whichever arrow it happened on.
    """
    settings = state.settings
    said = read_headers(request.scope["headers"], settings)
    deadline = time.monotonic() + said.limit_s
    late = parameters.model is None and carries_parameters(request)
    model = None if late else state.repository.find(parameters.model, parameters.version)
    ticket = model.admission.admit(said.limit_s, said.length) if model else None
    answered = False
    try:
        body = bytes(await read_body(request.receive, said, settings, whole=True))
        upload = await parse_upload(request, body, settings, state.decoders)
        if upload.parameters:
            parameters = merge_parameters(parameters, upload.parameters)
        if model is None:
            model = state.repository.find(parameters.model, parameters.version)
            ticket = model.admission.admit(said.limit_s, len(body))
        assert ticket is not None  # one of the two places has set it with the model
        ticket.begin()
        inference = Inference(parameters, model)
        if course is None:
            work = decode_and_run(state, model, upload, ticket, deadline, request=request)
        else:
            work = course(state, inference, upload, ticket, deadline)
        inference = await follow(request, inference, work)
        answered = True
        return inference
    finally:
        if ticket is not None:
            ticket.leave(answered=answered)


async def follow(
    request: Request, inference: Inference[P], course: Coroutine[Any, Any, tuple[Sizes, Sequence[Answer], float]]
) -> Inference[P]:
    """Wait for what a model makes of images, for as long as their client is there.

    Args:
        request: whose client it is.
        inference: to be completed.
        course: gives sizes, answers, and seconds of decoding.

    Raises:
        ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away.
    """
    patient = inference.model.admission.drain_s() < _WATCH_FROM_S
    inference.sizes, inference.answers, inference.decode_s = await (
        course if patient else while_connected(request, course)
    )
    inference.finished_at = time.monotonic()
    return inference


def merge_parameters(parameters: P, given: dict[str, object]) -> P:
    """Add the parameters that came in the body to those of the query, and check them.

    Raises:
        InvalidParameter: 422; unknown, out of range, or given in both places.
    """
    asked = parameters.model_dump(exclude_unset=True, by_alias=True)
    twice = sorted(asked.keys() & given.keys())
    if twice:
        raise InvalidParameter(f"parameter {twice[0]!r} is given in the query and in the body")
    try:
        return type(parameters).model_validate(asked | given)
    except ValidationError as error:
        known = [said.alias or name for name, said in type(parameters).model_fields.items()]
        raise InvalidParameter(explain(error.errors(include_url=False), known)) from None


def explain(errors: Sequence[Any], known: Iterable[str]) -> str:
    """Word pydantic's errors for the caller: the parameter and what was expected of it, never the value that came."""
    problems = []
    for error in errors:
        name = str(error["loc"][-1])[:64]
        if error["type"] == "extra_forbidden":
            problems.append(f"unknown parameter {name!r}; known are: {', '.join(known) or 'none'}")
        else:
            problems.append(f"{name}: {error['msg']}")
    return "; ".join(problems)


async def decode_and_run(
    state: State, model: Model, upload: Upload, ticket: Ticket, deadline: float, *, request: Request
) -> tuple[Sizes, Sequence[Answer], float]:
    """Take encoded images to the model's outputs. Returns their sizes, their answers, and seconds of decoding.

    Images too large for one canvas have a queue of their own, and come last; their rows are decoded as they are run.

    Raises:
        ServiceError: any of the tree in errors.py. ClientDisconnect: the client went away while tiles were run.
    """
    opened, decode_s = await open_images(state, model, upload, deadline)
    places = range(len(opened))
    sizes = [size_of(each) for each in opened]
    whole = {place: each for place, each in enumerate(opened) if isinstance(each, np.ndarray)}
    ticket.weigh(sum(sizes[place][0] * sizes[place][1] for place in whole), len(whole))
    answers = dict(zip(whole, await run_each([model.infer(image, deadline) for image in whole.values()]), strict=True))
    large = {place: each for place, each in enumerate(opened) if isinstance(each, Rows)}
    if large and model.tiles is not None:
        ticket.move(model.tiles.admission, answered=bool(whole))
        ticket.weigh(sum(model.tiles.work(rows) for rows in large.values()), len(large))
        courses = run_each([named(upload, place, model.infer_tiles(rows, deadline)) for place, rows in large.items()])
        answers.update(zip(large, await while_connected(request, courses), strict=True))
    return sizes, [answers[place] for place in places], decode_s


async def open_images(
    state: State, model: Model, upload: Upload, deadline: float
) -> tuple[Sequence[np.ndarray | Rows], float]:
    """Decode images, uint8 (H,W,C); of those that are to be tiled, only begin. Returns them, and seconds of it.

    Raises:
        ServiceError: any of the tree in errors.py.
    """
    started = time.monotonic()
    places = range(len(upload.images))
    opened = await run_each([named(upload, place, _open(state, model, upload, place, deadline)) for place in places])
    return opened, time.monotonic() - started


def size_of(opened: np.ndarray | Rows) -> tuple[int, int]:
    """Height and width of an image that is decoded, or is yet to be."""
    return (opened.header.height, opened.header.width) if isinstance(opened, Rows) else opened.shape[:2]


async def _open(state: State, model: Model, upload: Upload, place: int, deadline: float) -> np.ndarray | Rows:
    """Decode an image in a thread; of one that is to be tiled, only begin."""
    channels: Channels = "L" if model.card.preprocessing.channels == "L" else "RGB"
    data, settings = upload.images[place], state.settings

    def work() -> np.ndarray | Rows:
        if time.monotonic() > deadline:  # it waited for a thread too long: do not begin
            raise DeadlineExceeded("the time limit passed before the image was decoded")
        header = read_header(data)
        large = header.height * header.width > settings.max_canvas_pixels  # whether it can be tiled is asked only then
        if large and model.tiles is not None:
            model.check_size(header.height, header.width)
            model.tiles.cut(header)
            return open_rows(
                data, channels=channels, max_pixels=settings.max_pixels, max_tiled_pixels=settings.max_tiled_pixels
            )
        if header.height * header.width > settings.max_pixels and model.tiling.reasons:
            raise PayloadTooLarge(
                f"expected at most {settings.max_pixels} pixels, the image has {header.width}x{header.height},"
                f" and model {model.name} takes none in tiles: {model.tiling.reasons[0]}"
            )
        image = decode(data, channels=channels, max_pixels=settings.max_pixels)  # (H,W,C)
        model.check_size(image.shape[0], image.shape[1])
        return image

    return await asyncio.get_running_loop().run_in_executor(state.decoders, work)


async def named(upload: Upload, place: int, course: Coroutine[Any, Any, T]) -> T:
    """Have an error say which image it is of, where there may be several."""
    try:
        return await course
    except ServiceError as error:
        if upload.many:
            error.message = f"images[{place}]: {error.message}"
        raise


async def run_each(courses: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once; the first failure is the whole's, and takes the others with it."""
    if len(courses) == 1:
        return [await courses[0]]
    tasks = [asyncio.ensure_future(course) for course in courses]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def while_connected(request: Request, course: Coroutine[Any, Any, T]) -> T:
    """Run something for as long as the client is there; when it goes away, what it waited for leaves the queue.

    Raises:
        ClientDisconnect: it went away; there is nobody to answer.
    """
    work = asyncio.ensure_future(course)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

"""POST /v1/embed: images in, descriptors out: the model's own embedding, or its features pooled by any of the catalogue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.api.accept import MEDIA_TYPES, Written, choose
from service.api.documents import INFERENCE_ERRORS, INFERENCE_HEADERS, TIMED, error_responses
from service.api.images import Upload
from service.api.inference import Inference, ModelParameters, Sizes, decode_and_run, infer_images, size_of
from service.api.operations import descriptor_parameters
from service.api.pictures import PICTURE_BODY, each_in_thread, features_of, in_thread
from service.api.sending import PiecewiseResponse
from service.api.state import State, get_state
from service.codecs.tensors.json_text import json_pieces
from service.codecs.tensors.npy import write_npy
from service.errors import InvalidParameter, ModelNotFound, NotAcceptable, PayloadTooLarge
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.descriptor import read_recipe
from service.runtime.model import Model

router = APIRouter(tags=["images"])

_SMALL = 2**16
"""Numbers that are written on the event loop: 3 ms."""


def _listed(value: object) -> object:
    """Part names at commas: text, or as a query has it, a list of such."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return value
    return [part.strip() for text in texts for part in text.split(",")]


class EmbedParameters(ModelParameters):
    """Parameters of /v1/embed; beside these, those of the operators and their regions, by name."""

    model_config = ConfigDict(extra="allow")

    pool: Annotated[list[str] | None, BeforeValidator(_listed)] = Field(
        None,
        max_length=16,
        description="Operators of the catalogue, whose answers stand one after the other; by default the model's own embedding.",
    )
    normalize: bool = Field(
        True,
        description="Make the whole descriptor a unit vector (L2); one of zeros stays as it is. An operator's own parameter of "
        "this name keeps its default.",
    )

    @property
    def others(self) -> dict[str, Any]:
        """The parameters of operators and regions, as they came."""
        return dict(self.model_extra or {})


class Embedded(BaseModel):
    """One image's descriptor."""

    width: int = Field(description="Pixels, as displayed (EXIF orientation applied).", examples=[640])
    height: int = Field(examples=[480])
    embedding: list[float]


class Embeddings(BaseModel):
    """The answer of /v1/embed: results in the images' order."""

    model: str = Field(examples=["digits"])
    version: str = Field(examples=["1"])
    dimension: int = Field(description="Numbers of each descriptor.", examples=[96])
    results: list[Embedded]


@router.post(
    "/v1/embed",
    response_model=Embeddings,
    summary="Make descriptors of images of any size",
    openapi_extra={"requestBody": PICTURE_BODY, "parameters": [*descriptor_parameters(), *INFERENCE_HEADERS]},
    responses={
        200: {**TIMED[200], "content": {MEDIA_TYPES["npy"]: {"schema": {"type": "string", "format": "binary"}}}},
        **error_responses(*INFERENCE_ERRORS, ModelNotFound, NotAcceptable),
    },
)
async def embed(
    request: Request, parameters: Annotated[EmbedParameters, Query()], state: Annotated[State, Depends(get_state)]
) -> Response:
    """Send images as to /v1/classify; each comes back as one vector, all of one length, whatever the images' sizes.

    Without `pool` it is the model's own embedding. With `pool=gem`, or several as in `pool=gem,max`, the features before the
    model's own pooling are pooled by those operators of the catalogue (`/v1/pool/operators`) with their parameters (`p=4`), over
    the whole map, a grid (`output_size=2`), a pyramid (`levels=1,2,4`) or `boxes` in pixels of the picture. Numbers stand operator
    after operator, in each region after region, in each channel after channel. The network runs once, whatever is asked. JSON, or
    with `Accept: application/x-npy` the (N,D) float32 array itself.
    """
    written, _ = choose(request.headers.get("accept", ""), "json", ("json", "npy"))
    inference = await infer_images(request, state, parameters, partial(_course, request))
    write = partial(_write, inference, written)
    if sum(answer.outputs[0].size for answer in inference.answers) <= _SMALL:
        pieces = write()
    else:
        pieces = await asyncio.get_running_loop().run_in_executor(state.poolers, write)
    headers = {"Server-Timing": inference.server_timing().decode()}
    return PiecewiseResponse(pieces, MEDIA_TYPES[written], headers)


def _write(inference: Inference[EmbedParameters], written: Written) -> Sequence[bytes | memoryview]:
    """Word the answer: JSON, or the array."""
    vectors = np.stack([answer.outputs[0] for answer in inference.answers])  # (N,D)
    if inference.parameters.normalize:
        vectors = normalized(vectors)
    if written == "npy":
        return write_npy(vectors)
    results = [
        {"width": width, "height": height, "embedding": vector}
        for (height, width), vector in zip(inference.sizes, vectors, strict=True)
    ]
    model = inference.model
    return json_pieces(
        {"model": model.name, "version": model.version, "dimension": vectors.shape[1], "results": results}
    )


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Divide each row by its L2 norm, taken in float64 of what was scaled to 1 first; rows of zeros stay.

    Args:
        vectors: (N,D), float32, finite.
    """
    wide = vectors.astype(np.float64)
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norm > 0, norm, 1), np.float32)


async def _course(  # noqa: PLR0917 – the parts of a request
    request: Request,
    state: State,
    inference: Inference[EmbedParameters],
    upload: Upload,
    ticket: Ticket,
    deadline: float,
) -> tuple[Sizes, Sequence[Answer], float]:
    """Take images to descriptors. Returns their sizes, an answer for each with the descriptor (D,), seconds of decoding."""
    parameters, model = inference.parameters, inference.model
    if parameters.pool is None:
        place = _own_embedding(model, parameters)
        sizes, answers, decode_s = await decode_and_run(state, model, upload, ticket, deadline, request=request)
        return sizes, [_answer(answer, answer.outputs[place], answer.run_s) for answer in answers], decode_s
    recipe = read_recipe(parameters.pool, parameters.others)
    grid = await model.features.ready(deadline)
    length = await in_thread(state, partial(recipe.check, state.pooler, grid.channels, deadline), deadline)
    most, count = state.settings.max_tensor_elements, len(upload.images)
    if length * count > most:
        raise PayloadTooLarge(f"expected at most {most} numbers in all descriptors, {count} would have {length} each")
    pictures, answers, decode_s = await features_of(request, state, model, upload, ticket, deadline)
    sizes = [size_of(picture) for picture in pictures]
    for height, width in sizes:
        recipe.check_boxes(height, width)
    pooled_at = time.monotonic()
    works = [partial(recipe.describe, state.pooler, answer.outputs[0], grid, deadline) for answer in answers]
    vectors = await each_in_thread(state, upload, works, deadline)
    pool_s = time.monotonic() - pooled_at
    return sizes, [_answer(a, vector, a.run_s + pool_s) for a, vector in zip(answers, vectors, strict=True)], decode_s


def _answer(answer: Answer, vector: np.ndarray, run_s: float) -> Answer:
    return answer._replace(outputs=[np.asarray(vector, np.float32).ravel()], run_s=run_s)


def _own_embedding(model: Model, parameters: EmbedParameters) -> int:
    """Find the model's own embedding among its outputs.

    Raises:
        InvalidParameter: 422; it has none, or there are parameters of operators without an operator.
    """
    if parameters.others:
        known = ", ".join(EmbedParameters.model_fields)
        raise InvalidParameter(
            f"unknown parameter {min(parameters.others)[:64]!r}; known are: {known}; with `pool`, those of its operators"
        )
    if model.card.embedding is None or model.card.embedding not in model.network.outputs:
        raise InvalidParameter(
            f"pool: model {model.name} has no embedding of its own (its card names none of its outputs as such); "
            "expected operators of the catalogue, such as pool=avg"
        )
    return list(model.network.outputs).index(model.card.embedding)

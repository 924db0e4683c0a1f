"""POST /v1/heatmap: an image in, out comes where in it the evidence for a class is."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from service.api.accept import MEDIA_TYPES, Written, choose
from service.api.documents import INFERENCE_ERRORS, INFERENCE_HEADERS, TIMED, error_responses
from service.api.images import Upload
from service.api.inference import Inference, ModelParameters, Sizes, infer_images, size_of
from service.api.pictures import PICTURE_BODY, each_in_thread, features_of
from service.api.sending import PiecewiseResponse
from service.api.state import State, get_state
from service.codecs.heat import over
from service.codecs.rows import Rows
from service.codecs.tensors.json_text import json_pieces
from service.codecs.tensors.npy import write_npy
from service.codecs.tensors.picture import encode_png
from service.errors import (
    InvalidParameter,
    ModelNotFound,
    NotAcceptable,
)
from service.runtime.activation import centre, class_map, spread
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.features import Grid
from service.runtime.model import Model
from service.runtime.ranking import order, probabilities

router = APIRouter(tags=["images"])

_FORMS: tuple[Written, ...] = ("png", "npy", "json")


class HeatmapParameters(ModelParameters):
    """Parameters of /v1/heatmap; in the query, in JSON, or as form fields."""

    class_: str | int | None = Field(
        None,
        alias="class",
        description="Whose evidence: a class's index or its label; by default the most probable.",
        examples=["3"],
    )
    alpha: float = Field(0.5, ge=0, le=1, description="Of the picture: the map's share, 0 … 1.")
    upsample: bool | None = Field(
        None,
        description="Of numbers: on the picture's pixels (the default for .npy), or the cells of the features (for JSON).",
    )


class HeatmapClass(BaseModel):
    """The class that a map is of."""

    index: int = Field(description="From 0.", examples=[3])
    label: str = Field(examples=["3"])
    score: float = Field(description="Of the whole picture, as the network gives it.", examples=[7.25])
    probability: float = Field(ge=0, le=1, examples=[0.998])


class Heat(BaseModel):
    """One image's map."""

    width: int = Field(description="Pixels, as displayed (EXIF orientation applied).", examples=[640])
    height: int = Field(examples=[480])
    of: HeatmapClass = Field(alias="class")
    first: tuple[float, float] = Field(
        description="Where map[0][0] lies in the picture, y and x in pixels; the middle of the first pixel is 0, 0.",
        examples=[[0.0, 0.0]],
    )
    step: tuple[int, int] = Field(description="From one to the next, y and x in pixels.", examples=[[64, 64]])
    map: list[list[float]] = Field(description="Evidence, row by row, in units of the score.")


class Heatmap(BaseModel):
    """The answer of /v1/heatmap as JSON: results in the images' order."""

    model: str = Field(examples=["digits"])
    version: str = Field(examples=["1"])
    results: list[Heat]


_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/v1/heatmap",
    response_model=Heatmap,
    summary="Show where in an image the evidence for a class is",
    openapi_extra={"requestBody": PICTURE_BODY, "parameters": INFERENCE_HEADERS},
    responses={
        200: {**TIMED[200], "content": {MEDIA_TYPES["png"]: _BINARY, MEDIA_TYPES["npy"]: _BINARY}},
        **error_responses(*INFERENCE_ERRORS, ModelNotFound, NotAcceptable),
    },
)
async def heatmap(
    request: Request, parameters: Annotated[HeatmapParameters, Query()], state: Annotated[State, Depends(get_state)]
) -> Response:
    """The class activation map: what each cell of the features, taken alone, says for a class.

    Of a network that averages it is W_c·f + b, whose mean is the picture's score; of a maximum, GeM or log-sum-exp the score that
    the picture would have if all of it looked like the cell; of attention the same, weighted as the network weighs its cells.

    A PNG: the map in colours (dark is its lowest value, bright its highest) over the picture. With `Accept: application/x-npy` the
    float32 map on the picture's pixels, (height, width). With `Accept: application/json` the map of the cells, where they lie, and
    its class; for any number of images.
    """
    written, _ = choose(request.headers.get("accept", ""), "png", _FORMS)
    drawing = _Drawing(written, request)
    inference = await infer_images(request, state, parameters, drawing.course)
    headers = {"Server-Timing": inference.server_timing().decode()}
    if written != "json":
        return PiecewiseResponse(drawing.made[0], MEDIA_TYPES[written], headers)
    said = orjson.dumps({"model": inference.model.name, "version": inference.model.version})
    pieces: list[bytes | memoryview] = [said[:-1], b',"results":[']
    for place, made in enumerate(drawing.made):
        pieces += [b",", *made] if place else made
    return PiecewiseResponse([*pieces, b"]}"], MEDIA_TYPES["json"], headers)


class _Drawing:
    """One request's maps, in the form that it wants.

    Attributes:
        made: for each image a PNG, a .npy file, or a JSON object, in pieces.
    """

    def __init__(self, written: Written, request: Request) -> None:
        self.written = written
        self._request = request
        self.made: Sequence[Sequence[bytes | memoryview]] = ()

    async def course(
        self, state: State, inference: Inference[HeatmapParameters], upload: Upload, ticket: Ticket, deadline: float
    ) -> tuple[Sizes, Sequence[Answer], float]:
        """Take images to their maps; gives sizes, the features' answers, seconds of decoding."""
        parameters, model = inference.parameters, inference.model
        if self.written != "json" and len(upload.images) > 1:
            raise InvalidParameter(
                f"expected one image for {MEDIA_TYPES[self.written]}, got {len(upload.images)}; application/json takes several"
            )
        if self.written == "png" and parameters.upsample is False:
            raise InvalidParameter("upsample: expected true for image/png, where the map lies on the picture")
        index = _index(model, parameters.class_)
        grid = await model.features.ready(deadline)
        model.features.check_cells()
        whole = (
            "a map on its pixels is not made of tiles; upsample=false as numbers gives the cells"
            if self._on_pixels(parameters)
            else ""
        )
        pictures, answers, decode_s = await features_of(
            self._request, state, model, upload, ticket, deadline, refuse_large=whole
        )
        begun = time.monotonic()
        works = [
            partial(self._draw, model, parameters, grid, index, picture, answer.outputs[0], deadline)
            for picture, answer in zip(pictures, answers, strict=True)
        ]
        self.made = await each_in_thread(state, upload, works, deadline)
        seconds = time.monotonic() - begun
        return (
            [size_of(picture) for picture in pictures],
            [answer._replace(run_s=answer.run_s + seconds) for answer in answers],
            decode_s,
        )

    def _on_pixels(self, parameters: HeatmapParameters) -> bool:
        return self.written != "json" if parameters.upsample is None else parameters.upsample

    def _draw(  # noqa: PLR0917 – what is known of one picture
        self,
        model: Model,
        parameters: HeatmapParameters,
        grid: Grid,
        index: int | None,
        picture: np.ndarray | Rows,
        maps: np.ndarray,
        deadline: float,
    ) -> Sequence[bytes | memoryview]:
        height, width = size_of(picture)
        activation, output = model.card.activation, model.network.outputs[model.scores_place]

        def best(scores: np.ndarray) -> int:
            return int(order(probabilities(scores, activation))[0]) if index is None else index

        found = class_map(model.features, maps, output, best, deadline)
        upsample = self._on_pixels(parameters)
        heat = spread(found.cells, grid, height, width) if upsample else found.cells
        if self.written == "png":
            assert isinstance(picture, np.ndarray)  # where it is not, the map was refused
            return [encode_png(over(picture, heat, parameters.alpha))]
        if self.written == "npy":
            return write_npy(heat)
        first = (0.0, 0.0) if upsample else (centre(grid.rows), centre(grid.columns))
        step = (1, 1) if upsample else (grid.rows.level.stride, grid.columns.level.stride)
        document = {
            "width": width,
            "height": height,
            "class": {
                "index": found.index,
                "label": model.label_names[found.index],
                "score": found.scores[found.index],
                "probability": probabilities(found.scores, activation)[found.index],
            },
            "first": first,
            "step": step,
            "map": heat,
        }
        return json_pieces(document)


def _index(model: Model, asked: str | int | None) -> int | None:
    """Find a class by its label or index; None where none is asked for.

    Raises:
        InvalidParameter: 422; there is no such class.
    """
    if asked is None:
        return None
    names = model.label_names
    if isinstance(asked, str) and asked in names:
        return list(names).index(asked)
    try:
        index = int(asked)
    except ValueError:
        nearest = difflib.get_close_matches(str(asked)[:64], names, n=3, cutoff=0.0)
        raise InvalidParameter(
            f"class: expected an index below {model.classes} or a label of model {model.name}, got neither; "
            f"the nearest labels are {', '.join(nearest)}"
        ) from None
    if not 0 <= index < model.classes:
        raise InvalidParameter(f"class: expected an index from 0 to {model.classes - 1}, got {str(index)[:24]}")
    return index

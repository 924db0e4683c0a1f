"""POST /v1/classify: images in, labels out."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from service.api.documents import IMAGE_BODY, INFERENCE_ERRORS, INFERENCE_HEADERS, TIMED, error_responses
from service.api.inference import Inference, ModelParameters, infer_images
from service.api.state import State, get_state
from service.errors import InvalidParameter, ModelNotFound
from service.runtime.batcher import Answer
from service.runtime.model import Model

router = APIRouter(tags=["images"])


NUMBERS_ONLY = "shape, dtype: expected beside raw numbers (application/octet-stream) only"


class ClassifyParameters(ModelParameters):
    """Parameters of /v1/classify; in the query, in JSON, or as form fields."""

    top: int = Field(5, ge=1, le=100_000, description="How many classes, the most probable first.")
    shape: str | None = Field(
        None,
        description="Of a body of raw numbers: `C,H,W` or `N,C,H,W` as the network takes them, or `H,W,C` or `N,H,W,C` of pixels.",
        examples=["1,28,28"],
    )
    dtype: str | None = Field(
        None,
        description="Of a body of raw numbers, little-endian: the network's own (mostly `float32`), or `uint8` for pixels.",
        examples=["float32"],
    )


class Prediction(BaseModel):
    """One class of one image."""

    index: int = Field(description="Of the class, from 0.", examples=[5])
    label: str = Field(examples=["5"])
    probability: float = Field(ge=0, le=1, examples=[0.998])


class Classified(BaseModel):
    """One image's classes."""

    width: int = Field(description="Pixels, as displayed (EXIF orientation applied).", examples=[640])
    height: int = Field(examples=[480])
    predictions: list[Prediction]


class Classification(BaseModel):
    """The answer of /v1/classify: results in the images' order."""

    model: str = Field(examples=["digits"])
    version: str = Field(examples=["1"])
    results: list[Classified]


def write_classes(inference: Inference[ClassifyParameters]) -> bytes:
    """Word the answer: each image's classes as JSON."""
    model, top = inference.model, inference.parameters.top
    labels = model.label_names
    results = []
    for (height, width), answer in zip(inference.sizes, inference.answers, strict=True):
        p, order = model.ranking(answer)
        # float32 keeps its short decimal form
        predictions = [{"index": i, "label": labels[i], "probability": p[i]} for i in order[:top].tolist()]
        results.append({"width": width, "height": height, "predictions": predictions})
    document = {"model": model.name, "version": model.version, "results": results}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


class Wording:
    """Words answers of one image of a known size, as `write_classes` does: what does not change is written once."""

    def __init__(self, model: Model, top: int, height: int, width: int) -> None:
        """Write what does not change.

        Args:
            model: that answers.
            top: how many classes.
            height: of the image, in pixels.
            width: of the image, in pixels.
        """
        self._model, self._top = model, top
        names = b'{"model":%b,"version":%b,' % (orjson.dumps(model.name), orjson.dumps(model.version))
        self._begin = b'%b"results":[{"width":%d,"height":%d,"predictions":[' % (names, width, height)
        self._heads = [
            b'{"index":%d,"label":%b,"probability":' % (index, orjson.dumps(label))
            for index, label in enumerate(model.label_names)
        ]

    def write(self, answer: Answer) -> bytes:
        """Give the JSON."""
        p, order = self._model.ranking(answer)
        best = order[: self._top]
        numbers = orjson.dumps(p[best], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        heads = self._heads
        rows = [heads[index] + number for index, number in zip(best.tolist(), numbers, strict=True)]
        return b"%b%b}]}]}" % (self._begin, b"},".join(rows))


@router.post(
    "/v1/classify",
    response_model=Classification,
    summary="Label images of any size",
    openapi_extra={"requestBody": IMAGE_BODY, "parameters": INFERENCE_HEADERS},
    responses=TIMED | error_responses(*INFERENCE_ERRORS, ModelNotFound),
)
async def classify(
    request: Request, parameters: Annotated[ClassifyParameters, Query()], state: Annotated[State, Depends(get_state)]
) -> Response:
    """Send one image as the body, several as `multipart/form-data`, or base64 in JSON; each comes back with its classes.

    Or numbers: what the network itself takes, (C,H,W) or (N,C,H,W) in its own dtype, with nothing done to them; or uint8 pixels,
    (H,W,C) or (N,H,W,C), which go as decoded pictures do. As `application/octet-stream`, little-endian, with `shape` and `dtype`,
    or as a .npy file (`application/x-npy`).

    JPEG, PNG, WebP, GIF (first frame), BMP, TIFF of any size, never resized; what is too large for one run is cut into tiles, where
    the model allows it, with the same answer. `X-Request-Timeout` says how many seconds you will wait: a request that cannot be
    answered by then is refused at once with 429 and a `Retry-After` that holds.
    """
    inference = await infer_images(request, state, parameters)
    if inference.parameters.shape is not None or inference.parameters.dtype is not None:
        raise InvalidParameter(NUMBERS_ONLY)
    headers = {"Server-Timing": inference.server_timing().decode()}
    return Response(write_classes(inference), media_type="application/json", headers=headers)

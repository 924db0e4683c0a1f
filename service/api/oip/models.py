"""GET /v2/models/…: metadata and readiness; POST …/infer, which is answered by `infer` before routing, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from service.api.documents import INFERENCE_HEADERS, error_responses
from service.api.oip import schemas
from service.api.oip.served import Served, find
from service.api.oip.signatures import Signature, inputs_of, outputs_of
from service.api.state import State, get_state
from service.errors import (
    DeadlineExceeded,
    InternalError,
    Malformed,
    ModelNotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

router = APIRouter(tags=["Open Inference Protocol"])

_FOUND = error_responses(ModelNotFound) | schemas.OTHER


class TensorMetadata(BaseModel):
    """An input or an output."""

    name: str = Field(examples=["images"])
    datatype: str = Field(examples=["UINT8"])
    shape: list[int] = Field(description="-1 is any size.", examples=[[-1, -1, -1, 3]])


class ModelMetadata(BaseModel):
    """A model, as its clients see it. Of an image model's inputs, a request has one."""

    name: str = Field(examples=["digits"])
    versions: list[str] = Field(examples=[["1"]])
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """It can answer."""

    name: str
    ready: bool


def _tensors(signatures: list[Signature]) -> list[TensorMetadata]:
    return [TensorMetadata(name=one.name, datatype=one.datatype, shape=list(one.shape)) for one in signatures]


def _metadata(state: State, served: Served) -> ModelMetadata:
    versions = state.repository.versions.get(served.name, {served.version: None})
    return ModelMetadata(
        name=served.name,
        versions=sorted(versions, key=int),
        platform="onnxruntime_onnx",
        inputs=_tensors(inputs_of(served)),
        outputs=_tensors(outputs_of(served)),
    )


def _ready(state: State, served: Served) -> ModelReady:
    if state.draining or not served.alive:
        raise NotReady(f"expected model {served.name} to be ready, it is stopping")
    return ModelReady(name=served.name, ready=True)


@router.get("/v2/models/{name}", summary="A model's inputs and outputs", responses=_FOUND)
async def model_metadata(name: str, state: Annotated[State, Depends(get_state)]) -> ModelMetadata:
    """Names, datatypes and shapes."""
    return _metadata(state, find(state, name, None))


@router.get("/v2/models/{name}/versions/{version}", summary="A version's inputs and outputs", responses=_FOUND)
async def version_metadata(name: str, version: str, state: Annotated[State, Depends(get_state)]) -> ModelMetadata:
    """Names, datatypes and shapes."""
    return _metadata(state, find(state, name, version))


@router.get("/v2/models/{name}/ready", summary="Is a model ready?", responses=_FOUND | error_responses(NotReady))
async def model_ready(name: str, state: Annotated[State, Depends(get_state)]) -> ModelReady:
    """200 if so."""
    return _ready(state, find(state, name, None))


@router.get(
    "/v2/models/{name}/versions/{version}/ready",
    summary="Is a version ready?",
    responses=_FOUND | error_responses(NotReady),
)
async def version_ready(name: str, version: str, state: Annotated[State, Depends(get_state)]) -> ModelReady:
    """200 if so."""
    return _ready(state, find(state, name, version))


_INFERRED = (
    schemas.ANSWER
    | error_responses(
        Malformed,
        ModelNotFound,
        RequestTimeout,
        PayloadTooLarge,
        UnsupportedMediaType,
        UnsupportedEncoding,
        Overloaded,
        InternalError,
        DeadlineExceeded,
    )
    | schemas.OTHER
)

_EXTRA = {"requestBody": schemas.REQUEST_BODY, "parameters": [*schemas.HEADERS, *INFERENCE_HEADERS]}


@router.post("/v2/models/{name}/infer", summary="Infer", response_model=None, responses=_INFERRED, openapi_extra=_EXTRA)
async def infer(name: str) -> None:
    """Tensors in, tensors out: as JSON, or as bytes behind it (the binary tensor extension), in either direction.

    An image model takes `images` (UINT8 N,H,W,C, or its ONNX input as its file has it) or `image_bytes` (BYTES: encoded pictures of
    any sizes; base64 in JSON) and gives `logits`, `probabilities` and, where its card names one, `embedding`. The model `pool`
    takes `tensor`, and the parameters of /v1/pool in `parameters`.
    """
    raise AssertionError("answered before routing")


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    summary="Infer by a version",
    response_model=None,
    responses=_INFERRED,
    openapi_extra=_EXTRA,
)
async def infer_version(name: str, version: str) -> None:
    """As without a version."""
    raise AssertionError("answered before routing")

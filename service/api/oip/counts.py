"""GET /v2/models/stats and /v2/models/…/stats: what models have done since the start, of this process."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from service.api.documents import error_responses
from service.api.oip import schemas
from service.api.oip.served import Served, all_served, find
from service.api.state import State, get_state
from service.errors import ModelNotFound

router = APIRouter(tags=["Open Inference Protocol"])

_FOUND = error_responses(ModelNotFound) | schemas.OTHER


class Durations(BaseModel):
    """How often, and for how long in all."""

    count: int
    ns: int = Field(description="Nanoseconds.")


class BatchStatistics(BaseModel):
    """Runs of one size."""

    batch_size: int
    compute_input: Durations
    compute_infer: Durations
    compute_output: Durations


class ModelStatistics(BaseModel):
    """One model's counts."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 before the first.")
    inference_count: int = Field(description="Samples: images, or tensors.")
    execution_count: int = Field(description="Runs of the model; a run has as many samples as were there.")
    inference_stats: dict[str, Durations] = Field(
        description="Requests: success, fail, and the stages of those answered."
    )
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[dict[str, Any]]


class AllStatistics(BaseModel):
    """As many as were asked for."""

    model_stats: list[ModelStatistics]


def _page(*found: Served) -> AllStatistics:
    pages: list[dict[str, object]] = [
        {"name": served.name, "version": served.version, **served.statistics.page()} for served in found
    ]
    return AllStatistics.model_validate({"model_stats": pages})


@router.get("/v2/models/stats", summary="What all models have done")
async def all_statistics(state: Annotated[State, Depends(get_state)]) -> AllStatistics:
    """Counts and durations; with several workers, of the process that answers."""
    return _page(*all_served(state))


@router.get("/v2/models/{name}/stats", summary="What a model has done", responses=_FOUND)
async def model_statistics(name: str, state: Annotated[State, Depends(get_state)]) -> AllStatistics:
    """Counts and durations; with several workers, of the process that answers."""
    return _page(find(state, name, None))


@router.get("/v2/models/{name}/versions/{version}/stats", summary="What a version has done", responses=_FOUND)
async def version_statistics(name: str, version: str, state: Annotated[State, Depends(get_state)]) -> AllStatistics:
    """Counts and durations; with several workers, of the process that answers."""
    return _page(find(state, name, version))

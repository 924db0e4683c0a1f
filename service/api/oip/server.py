"""GET /v2 and /v2/health: the server itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from service import __version__
from service.api.documents import error_responses
from service.api.oip.served import all_served
from service.api.state import State, get_state
from service.errors import NotReady

router = APIRouter(tags=["Open Inference Protocol"])

EXTENSIONS = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
]
"""By Triton's names, those that are here."""


class ServerMetadata(BaseModel):
    """The server."""

    name: str = Field(examples=["poolserve"])
    version: str
    extensions: list[str] = Field(description="Of the protocol, by Triton's names.", examples=[EXTENSIONS])


class Live(BaseModel):
    """The process answers."""

    live: bool


class Ready(BaseModel):
    """It should get requests."""

    ready: bool


class ModelNames(BaseModel):
    """What is served."""

    models: list[str] = Field(examples=[["digits", "pool"]])


@router.get("/v2", summary="The server, and which extensions it has")
async def server_metadata() -> ServerMetadata:
    """Name, version, extensions."""
    return ServerMetadata(name="poolserve", version=__version__, extensions=EXTENSIONS)


@router.get("/v2/health/live", summary="Is the process alive?")
async def server_live() -> Live:
    """As /health/live."""
    return Live(live=True)


@router.get("/v2/health/ready", summary="Should it get requests?", responses=error_responses(NotReady))
async def server_ready(state: Annotated[State, Depends(get_state)]) -> Ready:
    """As /health/ready: 503 from SIGTERM on."""
    if not state.ready:
        raise NotReady(
            "expected to be ready, the process is stopping" if state.draining else "a model's thread has ended"
        )
    return Ready(ready=True)


@router.get("/v2/models", summary="Names of the models")
async def list_names(state: Annotated[State, Depends(get_state)]) -> ModelNames:
    """Every model that is served, `pool` among them."""
    return ModelNames(models=list(dict.fromkeys(served.name for served in all_served(state))))

"""GET /v1/models: what is loaded, each with its card and what was found out about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from graphs.card import ModelCard
from service.api.documents import error_responses
from service.api.state import State, get_state
from service.errors import InvalidParameter, ModelNotFound
from service.runtime.model import Model
from service.runtime.repository import Standing

router = APIRouter(tags=["models"])


class ModelPage(BaseModel):
    """One version of one model."""

    name: str
    version: str
    state: Literal["ready", "loading", "unloading", "broken"]
    reason: str | None = Field(None, description="Why it is not served, or why it is not what its files are now.")
    provider: str | None = Field(None, description="Execution provider that really runs it.", examples=["cpu"])
    device: str | None = Field(None, examples=["cpu", "cuda:0"])
    classes: int | None = None
    minimum_size: tuple[int, int] | None = Field(None, description="Smallest image, width and height in pixels.")
    fixed_size: tuple[int | None, int | None] | None = Field(
        None, description="Width and height that the graph fixes; null where any will do."
    )
    total_stride: tuple[int, int] | None = Field(
        None,
        description="Pixels from one feature to the next, across and down; null where the graph could not be followed.",
    )
    receptive_field: tuple[int, int] | None = Field(
        None, description="Width and height in pixels of what one feature sees."
    )
    batching: Literal["ragged", "same-size", "one"] | None = Field(
        None,
        description="Which images share a run: of any sizes (on one canvas, exactly), of the same size only, or none. "
        "`ragged` is used where it was measured at start to pay.",
    )
    batching_reasons: list[str] = Field([], description="Why it is not `ragged`; names the graph's nodes.")
    tiling: bool | None = Field(
        None, description="Whether an image too large for one canvas is cut into tiles, with the same answer."
    )
    tiling_reasons: list[str] = Field([], description="Why it is not; names the graph's nodes.")
    waiting: int | None = Field(None, description="Requests admitted and not answered yet.")
    card: ModelCard | None = None


class ModelList(BaseModel):
    """Every version of every model, by name, in the order of their numbers."""

    models: list[ModelPage]


class NoParameters(BaseModel):
    """Any parameter is an unknown one."""

    model_config = ConfigDict(extra="forbid")


class VersionParameter(NoParameters):
    """Which version."""

    version: str | None = Field(None, description="By default the highest that is served.", examples=["1"])


Nothing = Annotated[NoParameters, Query()]


_STATES: Mapping[str, Literal["loading", "unloading", "broken"]] = {
    "LOADING": "loading",
    "UNLOADING": "unloading",
    "UNAVAILABLE": "broken",
}


def _page(model: Model) -> ModelPage:
    geometry, trunk = model.geometry, model.trunk
    same: Literal["one", "same-size"] = "one" if geometry.batch == 1 else "same-size"
    return ModelPage(
        name=model.name,
        version=model.version,
        state="ready",
        provider=model.session.provider,
        device=model.session.device,
        classes=model.classes,
        minimum_size=(model.min_width, model.min_height),
        fixed_size=(geometry.width, geometry.height) if geometry.width or geometry.height else None,
        total_stride=trunk.stride[::-1] if trunk else None,
        receptive_field=trunk.receptive_field[::-1] if trunk else None,
        batching="ragged" if model.ragged else same,
        batching_reasons=list(model.ragged_reasons),
        tiling=not model.tiling.reasons,
        tiling_reasons=list(model.tiling.reasons),
        waiting=model.admission.waiting,
        card=model.card,
    )


@router.get("/v1/models", summary="List the models", responses=error_responses(InvalidParameter))
async def list_models(state: Annotated[State, Depends(get_state)], nothing: Nothing) -> ModelList:
    """Every version with its card: labels, head, preprocessing; and the device it really runs on."""
    for model in state.repository.served:
        await model.tiling.know()
    return ModelList(models=[_standing(state, row) for row in state.repository.standings()])


def _standing(state: State, row: Standing) -> ModelPage:
    if row.state == "READY":
        page = _page(state.repository.find(row.name, row.version))
        page.reason = row.reason or None
        return page
    return ModelPage(name=row.name, version=row.version or "", state=_STATES[row.state], reason=row.reason or None)


@router.get(
    "/v1/models/{name}", summary="Look at one model", responses=error_responses(InvalidParameter, ModelNotFound)
)
async def show_model(
    name: str, state: Annotated[State, Depends(get_state)], which: Annotated[VersionParameter, Query()]
) -> ModelPage:
    """One model's page."""
    model = state.repository.find(name, which.version)
    await model.tiling.know()
    return _page(model)

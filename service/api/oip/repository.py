"""POST /v2/repository/…: what the repository holds. What is loaded is settled at start: model control is `none`."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from service.api.documents import error_responses
from service.api.intake import read_body, read_headers
from service.api.oip import schemas
from service.api.oip.served import all_served
from service.api.state import State, get_state
from service.errors import Forbidden, Malformed, PayloadTooLarge, RequestTimeout

router = APIRouter(tags=["Open Inference Protocol"])

_INDEX_BODY = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ready": {"type": "boolean", "default": False}}}
            }
        },
    }
}


class IndexEntry(BaseModel):
    """One model of the repository."""

    name: str
    version: str | None = Field(None, description="Absent where none could be loaded.")
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


async def _only_ready(request: Request, state: State) -> bool:
    """Read whether only models that are ready are asked for.

    Raises:
        Malformed (400): no JSON object, or `ready` is not a boolean.
    """
    said = read_headers(request.scope["headers"], state.settings)
    if not said.length and "transfer-encoding" not in request.headers:
        return False
    try:
        document = orjson.loads(await read_body(request.receive, said, state.settings, whole=True))
    except orjson.JSONDecodeError:
        raise Malformed('expected nothing or {"ready": true}, got something that is not JSON') from None
    ready = document.get("ready", False) if isinstance(document, dict) else None
    if not isinstance(ready, bool):
        raise Malformed('expected nothing or {"ready": true}, got something else')
    return ready


@router.post(
    "/v2/repository/index",
    summary="What the repository holds",
    response_model_exclude_none=True,
    responses=error_responses(Malformed, RequestTimeout, PayloadTooLarge) | schemas.OTHER,
    openapi_extra=_INDEX_BODY,
)
async def repository_index(request: Request, state: Annotated[State, Depends(get_state)]) -> list[IndexEntry]:
    """Every model with its state; with `{"ready": true}` those that are ready."""
    only_ready = await _only_ready(request, state)
    found = [
        IndexEntry(
            name=served.name,
            version=served.version,
            state="READY" if served.alive else "UNAVAILABLE",
            reason="" if served.alive else "its thread has ended",
        )
        for served in all_served(state)
    ]
    found += [
        IndexEntry(name=name, state="UNAVAILABLE", reason="could not be loaded; the server's log says why")
        for name in state.repository.broken
    ]
    return [entry for entry in found if entry.state == "READY" or not only_ready]


def _refuse(what: str) -> None:
    """Refuse a change, on the headers.

    Raises:
        Forbidden (403): always.
    """
    raise Forbidden(
        f"{what} models over HTTP is switched off (model control is none): what is served is settled at start"
    )


@router.post(
    "/v2/repository/models/{name}/load",
    summary="Load a model",
    responses=error_responses(Forbidden) | schemas.OTHER,
)
async def load_model(name: str) -> None:
    """Refused: model control is `none`."""
    _refuse("loading")


@router.post(
    "/v2/repository/models/{name}/unload",
    summary="Unload a model",
    responses=error_responses(Forbidden) | schemas.OTHER,
)
async def unload_model(name: str) -> None:
    """Refused: model control is `none`."""
    _refuse("unloading")

"""GET /health/live and /health/ready, for orchestrators and balancers."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from service.api.documents import error_responses
from service.api.state import State, get_state
from service.errors import NotReady

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The answer where all is well; anything else is an error's body."""

    status: Literal["live", "ready"]


@router.get("/health/live", summary="Is the process alive?")
async def live() -> Health:
    """200 as long as the process answers at all; restart it otherwise."""
    return Health(status="live")


@router.get("/health/ready", summary="Should it get requests?", responses=error_responses(NotReady))
async def ready(state: Annotated[State, Depends(get_state)]) -> Health:
    """200 when every model is loaded and warm, which it is before the socket is bound; 503 from SIGTERM on."""
    if not state.ready:
        raise NotReady(
            "expected to be ready, the process is stopping" if state.draining else "a model's thread has ended"
        )
    return Health(status="ready")

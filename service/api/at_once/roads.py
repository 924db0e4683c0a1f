"""Which road a request takes that may be answered at once."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import Scope

from service.api.at_once.classify import ClassifyAtOnce
from service.api.at_once.infer import InferAtOnce
from service.api.at_once.pool import PoolAtOnce
from service.api.at_once.reply import Pending, Reply
from service.api.fast_path import PATH as CLASSIFY
from service.api.state import State

POOL = "/v1/pool"


class AtOnce:
    """Given to connections."""

    def __init__(self, app: FastAPI) -> None:
        """Begin.

        Args:
            app: whose requests these are.
        """
        state: State = app.state.poolserve
        self._roads = {
            CLASSIFY: ClassifyAtOnce(app.state.asked, limit_s=state.settings.timeout_s).answer,
            POOL: PoolAtOnce(app.state.repeats, crowd=state.pool_admission).answer,
        }
        self._infer = InferAtOnce(state).answer

    def __call__(self, scope: Scope, body: bytes) -> Reply | Pending | None:
        """Answer a request.

        Args:
            scope: ASGI's, of HTTP.
            body: all of it.

        Returns:
            Its answer; None where the application is to be asked. So it is, too, where an exception is raised.
        """
        if scope["method"] != "POST":
            return None
        return self._roads.get(scope["path"], self._infer)(scope, body)

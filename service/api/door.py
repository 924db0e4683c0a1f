"""The door: while there is a crowd, who cannot be answered in time is refused before the framework is entered.

Nothing is decided here that `infer_images` would not decide a moment later, by the same functions. But a crowd is refused hundreds
of times a second, on the cores that should be working, and the way to the decision is most of what a refusal costs.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.images import carries_parameters
from service.api.intake import read_headers
from service.api.state import State
from service.errors import Overloaded, ServiceError


class Door:
    """Pure ASGI, inside of `Boundary`, which answers what fails."""

    def __init__(self, app: ASGIApp, *, state: State, paths: frozenset[str]) -> None:
        """Guard endpoints.

        Args:
            app: what is inside.
            state: the app's.
            paths: of the endpoints that infer.
        """
        self.app = app
        self._state = state
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and scope["path"] in self._paths and scope["method"] == "POST":
            request = Request(scope)
            try:
                self._refuse(request)
            except Overloaded:
                raise
            except ServiceError:
                pass  # whatever is wrong with it, the endpoint says it
        await self.app(scope, receive, send)

    def _refuse(self, request: Request) -> None:
        query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
        if "model" not in query and carries_parameters(request):
            return  # the body may name the model
        model = self._state.repository.find(query.get("model"), query.get("version"))
        model.admission.refuse(read_headers(request.scope["headers"], self._state.settings).limit_s)

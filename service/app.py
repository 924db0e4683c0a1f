"""The application: resources, one error handler, the order of start and stop."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from service import __version__
from service.api import classify, embed, health, heatmap, metrics, models, pool
from service.api.door import Door
from service.api.fast_path import FastPath
from service.api.head import ASKED, Head
from service.api.hot import Hot
from service.api.inference import explain
from service.api.middleware import Boundary
from service.api.oip import ROUTERS
from service.api.oip.infer import Infer
from service.api.state import State
from service.errors import (
    InternalError,
    InvalidParameter,
    Malformed,
    MethodNotAllowed,
    Overloaded,
    PayloadTooLarge,
    RouteNotFound,
    ServiceError,
    UnsupportedEncoding,
)
from service.runtime.repository import Repository
from service.settings import Settings

log = logging.getLogger(__name__)

INFERENCE_PATHS = frozenset(
    route.path
    for resource in (classify, embed, heatmap)
    for route in resource.router.routes
    if isinstance(route, APIRoute)
)

_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""Looking for an OpenTelemetry provider at each request costs 12 µs; what there is to see is at /metrics."""

DESCRIPTION = "CNNs and pooling over HTTP: images of any size in, labels out; never resized, exact."


def create_app(settings: Settings, repository: Repository) -> FastAPI:
    """Make the application around a repository; its threads start and end with the app's lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state: State = app.state.poolserve
        repository.start()
        state.control.start()
        yield
        if state.reader is not None:
            state.reader.close()
        await state.control.stop()
        await run_in_threadpool(repository.stop)
        state.decoders.shutdown()
        state.poolers.shutdown()

    app: FastAPI = FastAPIOffline(
        title="poolserve",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # an address would be made of the Host header, which anybody may have written
        telemetry=_NO_TELEMETRY,
    )
    app.state.poolserve = State(settings, repository)
    for router in (
        *(resource.router for resource in (classify, embed, heatmap, pool, models, health, metrics)),
        *ROUTERS,
    ):
        app.include_router(router)
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        ServiceError: answer_error,
        RequestValidationError: answer_error,
        HTTPException: answer_error,
        ClientDisconnect: answer_nobody,
        Exception: answer_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    # Around FastAPI's own middleware, not within: that takes 7 µs of a request, a sixth of what a small one takes in all.
    state = app.state.poolserve
    inner: ASGIApp = Head(app.build_middleware_stack())
    fast = FastPath(Door(inner, state=state, paths=INFERENCE_PATHS), state=state)
    app.state.asked = fast.known
    repository.on_change.append(fast.known.clear)  # what is remembered of queries names models
    hot = Hot(fast, state=state)
    app.state.repeats = hot.repeats
    inner = Infer(hot, state=state)
    app.middleware_stack = Boundary(inner, access_log=settings.access_log, answer_error=answer_error)
    return app


def translate(request: Request, error: Exception) -> ServiceError:
    """Give any exception its place in the error tree."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
        known = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        return InvalidParameter(explain(error.errors(), known))
    if isinstance(error, HTTPException):  # Starlette's own, from routing and form parsing
        causes: dict[int, ServiceError] = {
            404: RouteNotFound("no such endpoint; /docs lists them"),
            413: PayloadTooLarge("the body is too large"),
        }
        if error.status_code == 405:
            asked: str = request.scope.get(ASKED, request.method)
            return MethodNotAllowed(f"expected {_allowed(error)} here, got {asked[:16]}")
        return causes.get(error.status_code, Malformed("the request cannot be read"))
    log.error("request %s failed", request.scope["state"]["request_id"], exc_info=error)
    return InternalError()


def _allowed(error: HTTPException) -> str:
    """Say which methods an endpoint takes: HEAD is where GET is, which the framework does not know."""
    methods = (error.headers or {}).get("Allow", "another method")
    return "GET, HEAD" if methods == "GET" else methods


async def answer_error(request: Request, error: Exception) -> Response:
    """Word any error: one shape, never a payload, never a traceback."""
    known = translate(request, error)
    request_id = request.scope["state"]["request_id"]
    headers = {}
    if isinstance(known, Overloaded):
        headers["Retry-After"] = str(known.retry_after_s)
    if isinstance(known, PayloadTooLarge):
        headers["Connection"] = "close"  # what is left of the body is not worth reading
    if isinstance(known, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(known.accepted)
    if isinstance(known, MethodNotAllowed) and isinstance(error, HTTPException):
        headers["Allow"] = _allowed(error)
    content = orjson.dumps({"error": known.message, "code": known.code, "request_id": request_id})
    return Response(content, known.status, headers, "application/json")


async def answer_nobody(request: Request, error: Exception) -> Response:
    """End the course of a client that went away; uvicorn drops what is sent to it."""
    return Response(status_code=499)

"""POST /v2/repository/…: how everything in the repository stands; and, where model control is `explicit`, what is to be served."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from service.api.documents import error_responses
from service.api.intake import Body, read_body, read_headers
from service.api.oip import pooling, schemas
from service.api.state import State, get_state
from service.codecs.tensors.base64_text import NoBase64, read_base64
from service.codecs.tensors.document import parse
from service.errors import (
    Forbidden,
    Malformed,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedEncoding,
)
from service.runtime.loader import Override

router = APIRouter(tags=["Open Inference Protocol"])

_MAX_FILES = 64
_FILE = re.compile(r"file:([1-9][0-9]{0,18}/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127})")
"""What a request may bring: files of a version, all in its folder."""


def _document(properties: Mapping[str, object], extra: object = False) -> dict[str, object]:
    schema = {"type": "object", "properties": properties, "additionalProperties": extra}
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}


_INDEX = _document({"ready": {"type": "boolean", "default": False}}, True)
_LOAD = _document(
    {
        "parameters": {
            "type": "object",
            "properties": {
                "config": {"type": "string", "description": "A model configuration as JSON, by Triton's names."}
            },
            "patternProperties": {
                "^file:": {"type": "string", "description": "`file:1/model.onnx`: base64; these are then all files."}
            },
            "additionalProperties": False,
        }
    }
)
_UNLOAD = _document(
    {
        "parameters": {
            "type": "object",
            "properties": {"unload_dependents": {"type": "boolean", "description": "Nothing depends on a model here."}},
            "additionalProperties": False,
        }
    }
)

_CHANGED = (
    {200: {"description": "It is done.", "content": {}}}
    | error_responses(
        Malformed, Forbidden, ModelNotFound, RequestTimeout, PayloadTooLarge, UnsupportedEncoding, Overloaded
    )
    | schemas.OTHER
)


class IndexEntry(BaseModel):
    """One version of a model."""

    name: str
    version: str | None = Field(None, description="Absent where all of a model is meant.")
    state: Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready, or why it is not what its files are now; else empty.")


async def _body(request: Request, state: State) -> Body:
    """Read a body; it may be empty."""
    said = read_headers(request.scope["headers"], state.settings)
    if not said.length and "transfer-encoding" not in request.headers:
        return b""
    return await read_body(request.receive, said, state.settings, whole=True)


def _object(body: Body, expected: str) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return parse(body, max_elements=0).members()
    except Malformed as error:
        raise Malformed(f"expected {expected}: {error.message}") from None


@router.post(
    "/v2/repository/index",
    summary="What the repository holds",
    response_model_exclude_none=True,
    responses=error_responses(Malformed, RequestTimeout, PayloadTooLarge, UnsupportedEncoding) | schemas.OTHER,
    openapi_extra=_INDEX,
)
async def repository_index(request: Request, state: Annotated[State, Depends(get_state)]) -> list[IndexEntry]:
    """Every version of every model with its state; with `{"ready": true}` those that are ready."""
    expected = 'nothing or {"ready": true}'
    only_ready = _object(await _body(request, state), expected).get("ready", False)
    if not isinstance(only_ready, bool):
        raise Malformed(f"expected {expected}, got something else")
    rows = [IndexEntry(**row._asdict()) for row in state.repository.standings()]
    rows.append(IndexEntry(name=pooling.NAME, version=pooling.VERSION, state="READY", reason=""))
    if only_ready:
        return [row for row in rows if row.state == "READY"]
    if state.settings.model_control == "explicit":
        listed = {row.name for row in rows}
        rows += [
            IndexEntry(name=name, state="UNAVAILABLE", reason="not loaded")
            for name in await state.control.names()
            if name not in listed
        ]
    return rows


def _check_control(state: State, what: str) -> None:
    """Refuse changes where they are not asked for by requests, on the headers.

    Raises:
        Forbidden (403): so it is.
    """
    control = state.settings.model_control
    if control != "explicit":
        how = "what is served is settled at start" if control == "none" else "what is served follows the files"
        raise Forbidden(f"{what} models over HTTP is switched off (model control is {control}, not explicit): {how}")


def _parameters(body: Body) -> dict[str, Any]:
    expected = 'nothing or {"parameters": {…}}'
    document = _object(body, expected)
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict) or document.keys() - {"parameters"}:
        raise Malformed(f"expected {expected}, got something else")
    return parameters


def read_override(body: Body) -> Override:
    """Read what a request to load brings.

    Raises:
        Malformed (400): no such request; or files without a configuration, that are none of a version's, or too many.
    """
    files: dict[str, bytes] = {}
    configuration: str | None = None
    for name, value in _parameters(body).items():
        if not isinstance(value, str):
            raise Malformed(f"parameter {name[:64]!r}: expected a string, got something else")
        if name == "config":
            configuration = value
            continue
        file = _FILE.fullmatch(name)
        if file is None:
            raise Malformed(
                f"parameter {name[:64]!r}: expected config, or a file of a version such as file:1/model.onnx, got something else"
            )
        if len(files) == _MAX_FILES:
            raise Malformed(f"expected at most {_MAX_FILES} files, got more")
        try:
            files[file[1]] = read_base64(value)
        except NoBase64 as error:
            raise Malformed(f"parameter {name[:64]!r}: expected base64, padded, got {error}") from None
    if files and configuration is None:
        raise Malformed("config: expected with files, there is none; {} will do")
    return Override(configuration, files)


@router.post(
    "/v2/repository/models/{name}/load",
    summary="Load a model",
    response_class=Response,
    responses=_CHANGED,
    openapi_extra=_LOAD,
)
async def load_model(name: str, request: Request, state: Annotated[State, Depends(get_state)]) -> Response:
    """Load a model, or load it again if its files have changed; answered when it is served. Only where model control is `explicit`.

    What served before serves until then, and goes on if the model cannot be loaded: 400 with the reason. With `config` the request
    brings its own configuration, and with files such as `file:1/model.onnx` all of the model.
    """
    _check_control(state, "loading")
    body = await _body(request, state)
    loop = asyncio.get_running_loop()
    await state.control.load(name, await loop.run_in_executor(state.decoders, partial(read_override, body)))
    return Response()


@router.post(
    "/v2/repository/models/{name}/unload",
    summary="Unload a model",
    response_class=Response,
    responses=_CHANGED,
    openapi_extra=_UNLOAD,
)
async def unload_model(name: str, request: Request, state: Annotated[State, Depends(get_state)]) -> Response:
    """Serve a model no more; requests that have found it before are answered. Only where model control is `explicit`."""
    _check_control(state, "unloading")
    parameters = _parameters(await _body(request, state))
    if parameters.keys() - {"unload_dependents"} or not isinstance(parameters.get("unload_dependents", False), bool):
        raise Malformed('expected nothing or {"parameters": {"unload_dependents": true}}, got something else')
    await state.control.unload(name)
    return Response()

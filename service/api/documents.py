"""Pieces of the OpenAPI document that several endpoints share: error answers made from the error classes, the image body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from service.errors import (
    DeadlineExceeded,
    InternalError,
    Invalid,
    Malformed,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
    ServiceError,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

INFERENCE_ERRORS: tuple[type[ServiceError], ...] = (
    Malformed,
    RequestTimeout,
    PayloadTooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
    Invalid,
    Overloaded,
    InternalError,
    DeadlineExceeded,
)
"""What every endpoint can answer that takes a body and runs something."""


class ErrorBody(BaseModel):
    """Every error's answer."""

    error: str = Field(description="What was expected, and what came.")
    code: str = Field(description="Stable name of the kind of error.")
    request_id: str = Field(description="As in the X-Request-ID header and in the server's log.")


def concrete(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
    """List the error classes at and under one that have a code of their own."""
    if "code" in vars(error):
        yield error
    for below in error.__subclasses__():
        yield from concrete(below)


def error_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """Make FastAPI's `responses` from the error classes an endpoint can answer with, so that the two cannot drift apart."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        for kind in concrete(error):
            entry = responses.setdefault(kind.status, {"model": ErrorBody, "description": ""})
            said = f"`{kind.code}`: {(kind.__doc__ or '').strip().splitlines()[0]}"
            entry["description"] = f"{entry['description']}\n\n{said}".strip()
            if kind.status == 429:
                entry["headers"] = {
                    "Retry-After": {
                        "description": "Seconds after which there is a place.",
                        "schema": {"type": "integer", "minimum": 1},
                    }
                }
    return responses


_BINARY = {"schema": {"type": "string", "format": "binary"}}

_DIGIT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAPklEQVR42iXBQRGAMAwAsNyOP0hASiUgZVKQMCmVgIRJGArK"
    "gwQ5/GbVpLG8eWhM+7NA9Oo2JCdckRVwVw0+rMkTQ/VXhBAAAAAASUVORK5CYII="
)
"""An 8×8 PNG of a handwritten 5."""

IMAGE_BODY: dict[str, Any] = {
    "required": True,
    "description": "The content decides what an image is; its Content-Type only helps. With `shape` and `dtype` it is raw numbers.",
    "content": {
        **{f"image/{kind}": _BINARY for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")},
        "application/octet-stream": _BINARY,
        "application/x-npy": _BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            },
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {"type": "array", "minItems": 1, "items": {"type": "string", "contentEncoding": "base64"}}
                },
            },
            "example": {"images": [_DIGIT]},
        },
    },
}

INFERENCE_HEADERS: list[dict[str, Any]] = [
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds that you will wait; at most the service's own `timeout_s`.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "example": 2,
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your name for this request, up to 128 of `A-Z a-z 0-9 . _ : -`; it comes back, and stands in the log.",
        "schema": {"type": "string", "maxLength": 128},
    },
]
"""Headers that every inference endpoint reads."""

TIMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer.",
        "headers": {
            "Server-Timing": {
                "description": "Milliseconds of each stage.",
                "schema": {"type": "string"},
                "example": "decode;dur=1.52, queue;dur=0.04, infer;dur=2.31, encode;dur=0.05",
            },
            "X-Request-ID": {"schema": {"type": "string"}},
        },
    }
}
"""What every inference endpoint's good answer carries."""

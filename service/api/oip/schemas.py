"""What the OpenAPI document says of inference by the protocol."""

from __future__ import annotations

from typing import Any

from service.api.documents import TIMED, ErrorBody
from service.codecs.oip.datatypes import BYTES, DATATYPES

_DATATYPE = {"type": "string", "enum": [*DATATYPES, BYTES]}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 32}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
}
_DATA = {"type": "array", "description": "Row-major, in one list or nested as the shape says."}
_BINARY = {
    "type": "string",
    "format": "binary",
    "description": "JSON, and behind it the tensors that say `binary_data_size`.",
}

_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1024, "description": "Comes back."},
        "parameters": {
            **_PARAMETERS,
            "description": "`timeout` in microseconds, `binary_data_output`; for `pool` the operator's: `op`, `kernel`, …",
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 64,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"type": "string"},
                    "shape": _SHAPE,
                    "datatype": _DATATYPE,
                    "parameters": {
                        **_PARAMETERS,
                        "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                    },
                    "data": _DATA,
                },
            },
        },
        "outputs": {
            "type": "array",
            "maxItems": 64,
            "description": "All of them where it is absent.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string"},
                    "parameters": {
                        **_PARAMETERS,
                        "properties": {
                            "binary_data": {"type": "boolean"},
                            "classification": {"type": "integer", "minimum": 1},
                        },
                    },
                },
            },
        },
    },
}

_EXAMPLES = {
    "pool": {
        "summary": "the model `pool`",
        "value": {
            "parameters": {"op": "max", "kernel": 2},
            "inputs": [
                {
                    "name": "tensor",
                    "shape": [4, 4],
                    "datatype": "FP32",
                    "data": [1, 3, 2, 4, 5, 2, 7, 1, 3, 8, 4, 2, 6, 1, 5, 9],
                }
            ],
        },
    },
    "images": {
        "summary": "an image model of one grey channel",
        "value": {
            "inputs": [
                {"name": "images", "shape": [1, 2, 2, 1], "datatype": "UINT8", "data": [[[[0], [255]], [[255], [0]]]]}
            ],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
        },
    },
}

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The Content-Type is not looked at: Inference-Header-Content-Length says where JSON ends and bytes begin.",
    "content": {
        "application/json": {"schema": _REQUEST, "examples": _EXAMPLES},
        "application/octet-stream": {"schema": _BINARY},
    },
}

HEADERS: list[dict[str, Any]] = [
    {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Bytes of JSON before those of tensors, decompressed; 0: the body is one encoded picture and nothing else.",
        "schema": {"type": "integer", "minimum": 0},
    },
    {
        "name": "Content-Encoding",
        "in": "header",
        "schema": {"type": "string", "enum": ["gzip", "deflate", "identity"]},
    },
    {"name": "Accept-Encoding", "in": "header", "schema": {"type": "string"}, "example": "gzip"},
]

_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": _SHAPE,
        "datatype": _DATATYPE,
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        "data": {
            **_DATA,
            "description": 'In one list; NaN and the infinities are the strings "NaN", "Infinity", "-Infinity".',
        },
    },
}

ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        **TIMED[200],
        "headers": {
            **TIMED[200]["headers"],
            "Inference-Header-Content-Length": {
                "description": "Where bytes follow the JSON.",
                "schema": {"type": "integer"},
            },
        },
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model_name", "model_version", "outputs"],
                    "properties": {
                        "model_name": {"type": "string"},
                        "model_version": {"type": "string"},
                        "id": {"type": "string"},
                        "outputs": {"type": "array", "items": _TENSOR},
                    },
                },
                "example": {
                    "model_name": "pool",
                    "model_version": "1",
                    "outputs": [{"name": "tensor", "datatype": "FP32", "shape": [2, 2], "data": [5.0, 7.0, 8.0, 9.0]}],
                },
            },
            "application/octet-stream": {"schema": _BINARY},
        },
    }
}

OTHER: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorBody, "description": "Any other error."}}
"""Instead of FastAPI's own 422, which the protocol never answers."""

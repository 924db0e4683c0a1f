"""What the OpenAPI document says of the tensor endpoints, made from the models that check their parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from graphs.operators.catalogue import CATALOGUE
from graphs.operators.request import RegionParameters
from service.api.accept import MEDIA_TYPES
from service.api.documents import INFERENCE_ERRORS, INFERENCE_HEADERS, TIMED, error_responses
from service.api.parameters import array_names
from service.codecs.tensors.dtypes import DTYPES
from service.errors import (
    NotAcceptable,
)
from service.runtime.descriptor import REGIONS
from service.runtime.pooling.given import Action
from service.runtime.pooling.unpool import UNPOOLERS, UnpoolParameters

_BINARY = {"type": "string", "format": "binary"}
_MATRIX = [[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]]
_DTYPE = {"type": "string", "enum": list(DTYPES)}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 32}
_NESTED: dict[str, Any] = {
    "description": 'Nested lists of numbers; NaN and the infinities are the strings "NaN", "Infinity", "-Infinity".',
    "anyOf": [{"type": "array"}, {"type": "number"}],
}
_TENSOR: dict[str, Any] = {
    "oneOf": [
        _NESTED,
        {
            "type": "object",
            "description": "Its shape, and its numbers in one list.",
            "required": ["shape", "data"],
            "properties": {"shape": _SHAPE, "dtype": _DTYPE, "data": {"type": "array"}},
            "additionalProperties": False,
        },
        {
            "type": "object",
            "description": "Its shape, and its little-endian bytes in base64.",
            "required": ["shape", "base64"],
            "properties": {"shape": _SHAPE, "dtype": _DTYPE, "base64": {"type": "string", "contentEncoding": "base64"}},
            "additionalProperties": False,
        },
    ]
}
_MEMBER = {"pool": "tensor", "gradient": "grad_input", "unpool": "tensor"}
_EXAMPLES: dict[Action, dict[str, Any]] = {
    "pool": {
        "windows": {"value": {"op": "max", "kernel": 2, "tensor": _MATRIX}},
        "several operators": {"value": {"ops": [{"op": "max"}, {"op": "avg", "output_size": 2}], "tensor": _MATRIX}},
    },
    "gradient": {"mask": {"value": {"op": "max", "kernel": 2, "tensor": _MATRIX, "grad_output": [[1, 1], [1, 1]]}}},
    "unpool": {
        "max": {"value": {"op": "max", "tensor": [[5, 7], [8, 9]], "indices": [[4, 6], [9, 15]], "output_size": [4, 4]}}
    },
}
_ANSWERS: dict[Action, dict[str, Any]] = {
    "pool": {"op": "max", "shape": [2, 2], "dtype": "float32", "tensor": [[5.0, 7.0], [8.0, 9.0]]},
    "gradient": {
        "op": "max",
        "shape": [4, 4],
        "dtype": "float32",
        "grad_input": [[0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    },
    "unpool": {
        "op": "max",
        "shape": [4, 4],
        "dtype": "float32",
        "tensor": [[0.0, 0.0, 0.0, 0.0], [5.0, 0.0, 7.0, 0.0], [0.0, 8.0, 0.0, 0.0], [0.0, 0.0, 0.0, 9.0]],
    },
}


def _schemas(action: Action) -> dict[str, dict[str, Any]]:
    """The schema of every parameter by name. Where operators share a name and differ, any of theirs."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    models: list[tuple[str, type[BaseModel]]] = [("", UnpoolParameters if action == "unpool" else RegionParameters)]
    if action != "unpool":
        models += [(operator.name, operator.parameters) for operator in CATALOGUE.values()]
    for owner, model in models:
        schema = model.model_json_schema()
        assert "$defs" not in schema, f"the parameters of {owner} refer to other schemas"
        for name, said in schema.get("properties", {}).items():
            found.setdefault(name, []).append((owner, {**said, "title": name}))
    if action == "gradient":
        found["grad_output"] = [("", {"description": "Gradient of the pooled tensor; ones if absent."})]
    elif action == "unpool":
        found["indices"] = [
            ("", {"description": "Where each value came from, flat in its plane, as `return_indices` gives."})
        ]
    return {name: _merged(name, said) for name, said in found.items()}


def _merged(name: str, said: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    different = [schema for place, (_, schema) in enumerate(said) if schema not in [other for _, other in said[:place]]]
    merged: dict[str, Any] = dict(different[0]) if len(different) == 1 else {"anyOf": different}
    owners = [owner for owner, _ in said if owner]
    if owners:
        merged["description"] = f"Of {', '.join(owners)}. {merged.get('description', '')}".strip()
    if name in array_names():
        merged = {"description": merged.get("description", ""), **_TENSOR}
    return merged


def _op(action: Action) -> dict[str, Any]:
    if action == "unpool":
        return {"type": "string", "enum": list(UNPOOLERS), "description": "How it was pooled."}
    names = [name for name, operator in CATALOGUE.items() if action == "pool" or operator.differentiable]
    return {"type": "string", "enum": names, "description": "The statistic, by its name in /v1/pool/operators."}


def request_parts(action: Action) -> dict[str, Any]:
    """The parameters and the request body of a tensor endpoint, for `openapi_extra`."""
    schemas = {"op": _op(action), **_schemas(action)}
    listed = {
        **schemas,
        "shape": {"type": "string", "description": "Of raw numbers: sizes with commas.", "examples": ["8,64,56,56"]},
        "dtype": {**_DTYPE, "description": "Of raw numbers."},
        "compare": {"type": "boolean", "default": False, "description": "Of pictures: before and after side by side."},
    }
    query = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": {"type": "string", "contentMediaType": "application/json"} if name in array_names() else schema,
        }
        for name, schema in listed.items()
    ]
    # Not every parameter once more: the document would be twice as long.
    member = {
        "type": "object",
        "required": ["op"],
        "properties": {"op": schemas["op"]},
        "description": "An operator with its parameters; those that stand beside `ops` hold where it does not say otherwise.",
    }
    document = {
        "type": "object",
        "required": ["tensor"],
        "properties": {
            **schemas,
            "tensor": _TENSOR,
            "dtype": {**_DTYPE, "default": "float32", "description": "Of numbers in nested lists."},
            "ops": {"type": "array", "minItems": 1, "maxItems": 64, "items": member},
        },
        "additionalProperties": False,
    }
    form = {
        "type": "object",
        "required": ["op"],
        "properties": {
            **schemas,
            **{name: {**_BINARY, "description": "A .npy file, or JSON."} for name in schemas if name in array_names()},
            "tensor": {**_BINARY, "description": "A .npy file, or nested lists as JSON."},
            "image": {**_BINARY, "description": "A picture, in place of the tensor."},
        },
    }
    return {
        "parameters": [*query, *INFERENCE_HEADERS],
        "requestBody": {
            "required": True,
            "description": "With a body that is not JSON or a form, the parameters are in the query.",
            "content": {
                "application/json": {"schema": document, "examples": _EXAMPLES[action]},
                "application/x-npy": {"schema": _BINARY},
                "application/x-npz": {"schema": _BINARY},
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": _BINARY},
                "image/*": {"schema": _BINARY},
            },
        },
    }


def answers(action: Action) -> dict[int | str, dict[str, Any]]:
    """The answers of a tensor endpoint, for `responses`."""
    properties: dict[str, Any] = {"op": {"type": "string"}, "shape": _SHAPE, "dtype": _DTYPE, _MEMBER[action]: _TENSOR}
    if action == "pool":
        properties |= {"indices": _TENSOR, "counts": _TENSOR}
    result = {"type": "object", "required": ["op", "shape", "dtype", _MEMBER[action]], "properties": properties}
    several = {"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": result}}}
    content: dict[str, Any] = {media_type: {"schema": _BINARY} for media_type in MEDIA_TYPES.values()}
    content["application/json"] = {"schema": {"anyOf": [result, several]}, "example": _ANSWERS[action]}
    headers = {
        **TIMED[200]["headers"],
        "X-Tensor-Shape": {"description": "Of raw numbers.", "schema": {"type": "string"}, "example": "8,64,28,28"},
        "X-Tensor-Dtype": {"description": "Of raw numbers.", "schema": _DTYPE},
    }
    good: dict[int | str, dict[str, Any]] = {200: {**TIMED[200], "headers": headers, "content": content}}
    return good | error_responses(*INFERENCE_ERRORS, NotAcceptable)


def descriptor_parameters() -> list[dict[str, Any]]:
    """The query parameters of descriptors: those of their regions, and of the operators that need nothing beside features."""
    takes_arrays = {name for operator in CATALOGUE.values() for name in operator.weights}
    own = {name for operator in CATALOGUE.values() if not operator.weights for name in operator.parameters.model_fields}
    own -= {"normalize"}  # a descriptor's own
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": "Boxes x1, y1, x2, y2 in pixels of the picture, as JSON."
            if name == "boxes"
            else schema.get("description", ""),
            "schema": {"type": "string", "contentMediaType": "application/json"} if name == "boxes" else schema,
        }
        for name, schema in _schemas("pool").items()
        if name in REGIONS or (name in own and name not in takes_arrays)
    ]

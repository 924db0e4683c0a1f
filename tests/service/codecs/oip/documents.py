"""Requests of the protocol as documents: how tests word and read them."""

from __future__ import annotations

import json
from typing import Any

from service.codecs.oip.declared import Limits
from service.codecs.oip.request import Request, read_request

LIMITS = Limits(elements=10_000, strings=100)


def read(document: object, tail: bytes | None = None, limits: Limits = LIMITS) -> Request:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_request(text if tail is None else text + tail, None if tail is None else len(text), limits)


def given(**members: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4], **members}


def one(**members: Any) -> dict[str, Any]:
    return {"inputs": [given(**members)]}


def binary(size: Any, **members: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}, **members}
        ]
    }

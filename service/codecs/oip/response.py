"""An inference response: JSON, with the outputs that are wanted so behind it as bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import orjson

from service.codecs.oip.classification import greatest
from service.codecs.oip.datatypes import BYTES, DATATYPES, name_of
from service.codecs.oip.elements import write_elements
from service.codecs.oip.request import Request
from service.codecs.tensors.dtypes import Tensor, little_endian
from service.codecs.tensors.json_text import json_pieces, write_array

_JOINED = 2**20
"""Bytes up to which copying is cheaper than sending one piece more."""

_WHOLE = 2**16
"""Elements up to which an output's numbers are written at once; more are written in slices, between which others run."""

_SMALL = 2**14
_LITTLE = frozenset(dtype for dtype in DATATYPES.values() if dtype == dtype.newbyteorder("<"))
"""Those that lie in memory as they go out: all of them on nearly every machine."""


class Output(NamedTuple):
    """A tensor that goes out.

    Attributes:
        name: as metadata has it.
        tensor: of any dtype of DATATYPES.
        samples: whether its first axis is that of samples, each classified by itself.
        labels: of the classes, by index.
    """

    name: str
    tensor: Tensor
    samples: bool = True
    labels: Sequence[str] = ()


class Response(NamedTuple):
    """What is sent.

    Attributes:
        header_length: bytes of JSON, where bytes follow; None where it is all JSON.
        buffers: to be sent one after the other.
    """

    header_length: int | None
    buffers: Sequence[bytes | memoryview]


def write_response(model: str, version: str, request: Request, outputs: Sequence[Output]) -> Response:
    """Write the outputs that a request wants.

    Numbers in JSON are in one list, as exact decimals of their dtype; NaN and the infinities are the strings "NaN", "Infinity",
    "-Infinity".

    Args:
        model: its name.
        version: of it.
        request: its `outputs` are names of these.
        outputs: all that were made.

    Raises:
        PayloadTooLarge (413): a classification with too many strings.
    """
    listed: list[dict[str, object]] = []
    tail: list[bytes | memoryview] = []
    if request.outputs is None:
        for output in outputs:
            listed.append(_written(output, tail if request.binary else None, 0))
    else:
        made = {output.name: output for output in outputs}
        for wanted in request.outputs:
            listed.append(_written(made[wanted.name], tail if wanted.binary else None, wanted.classes))
    document: dict[str, object] = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = listed
    large = any(isinstance(said.get("data"), np.ndarray) for said in listed)
    texts = json_pieces(document) if large else [orjson.dumps(document)]
    if not any(map(len, tail)):
        return Response(None, texts)
    length = sum(map(len, texts))
    if len(texts) == 1 and sum(map(len, tail)) <= _JOINED:
        return Response(length, [b"".join([*texts, *tail])])
    return Response(length, [*texts, *tail])


def write_numbers(tensor: Tensor) -> bytes | memoryview:
    """Give a tensor's elements as they go behind the JSON: row-major, little-endian."""
    if tensor.nbytes <= _SMALL and tensor.dtype in _LITTLE:
        return tensor.tobytes()  # seven times as fast as a view
    return little_endian(tensor)


def _written(output: Output, tail: list[bytes | memoryview] | None, classes: int) -> dict[str, object]:
    """Say what an output is, with its data; or put that behind what is in the tail already."""
    tensor = output.tensor
    if classes:
        n = len(tensor) if output.samples else 1
        rows = tensor.reshape(n, math.prod(tensor.shape[1:]) if output.samples else tensor.size)
        strings = greatest(rows, classes, output.labels)
        each = min(classes, rows.shape[1])
        shape: tuple[int, ...] = (n, each) if output.samples else (each,)
        said: dict[str, object] = {"name": output.name, "datatype": BYTES, "shape": shape}
        data: bytes | memoryview = write_elements(strings) if tail is not None else b""
        if tail is None:
            said["data"] = [string.decode() for string in strings]
    else:
        said = {"name": output.name, "datatype": name_of(tensor.dtype), "shape": tensor.shape}
        data = b"" if tail is None else write_numbers(tensor)
        if tail is None:
            flat = tensor.reshape(-1)
            said["data"] = orjson.Fragment(write_array(flat)) if flat.size <= _WHOLE else flat
    if tail is not None:
        said["parameters"] = {"binary_data_size": len(data)}
        tail.append(data)
    return said

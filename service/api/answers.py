"""The answer to a tensor request, as headers and buffers: JSON, .npy, .npz, raw numbers, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

import numpy as np

from service.api.accept import MEDIA_TYPES, Written
from service.api.tensors import Asked, Form
from service.codecs.tensors.dtypes import DTYPES, DType, Tensor
from service.codecs.tensors.json_text import array_pieces, json_pieces, tensor_member, write_json
from service.codecs.tensors.npy import write_npy
from service.codecs.tensors.npz import MAX_ARRAYS, write_npz
from service.codecs.tensors.picture import encode_png, side_by_side
from service.codecs.tensors.raw import write_raw, write_shape
from service.errors import InvalidParameter, NotAcceptable, PayloadTooLarge
from service.runtime.pooling.given import Action

Headers = list[tuple[bytes, bytes]]


_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}  # dtype.name takes 1.6 µs
_CONTENT_TYPES = {written: (b"content-type", media_type.encode()) for written, media_type in MEDIA_TYPES.items()}


_JOINED = 2**20
"""Bytes up to which copying is cheaper than sending one piece more."""


class Results(Protocol):
    """What came out of one operator."""

    tensor: Tensor
    indices: np.ndarray | None
    counts: np.ndarray | None


class Answer(NamedTuple):
    """What is sent.

    Attributes:
        headers: that say what the body is; its length is among them.
        buffers: to be sent one after the other.
    """

    headers: Headers
    buffers: Sequence[bytes | memoryview]


DEFAULTS: dict[Form, Written] = {
    "nested": "json",
    "flat": "json",
    "base64": "json",
    "npy": "npy",
    "npz": "npz",
    "raw": "raw",
    "png": "png",
}
"""The form of an answer where Accept leaves it open: as the tensor came."""


def write_answer(
    action: Action, asked: Asked, results: Sequence[Results], written: Written, *, named: bool, max_pixels: int
) -> Answer:
    """Write what came out.

    Args:
        action: names the tensor: `grad_input` for a gradient.
        asked: the request.
        results: one for each of its jobs.
        written: the form that Accept and the request lead to.
        named: whether Accept names it; if not, a form that holds one array gives way to one that holds several.
        max_pixels: of a picture.

    Raises:
        NotAcceptable (406): the form is named and cannot hold the answer.
        InvalidParameter (422): `compare` without a picture to write.
        InvalidTensor (422), PayloadTooLarge (413): what is to be a picture has no such shape, or is too large for one.
    """
    if asked.compare and written != "png":
        raise InvalidParameter("compare: expected with Accept: image/png only")
    member = "grad_input" if action == "gradient" else "tensor"
    if written == "json":
        return _json(asked, results, member)
    arrays = _arrays(results, member, many=asked.many)
    if written != "npz" and len(arrays) > 1:
        if named:
            raise NotAcceptable(
                f"Accept: expected application/json or application/x-npz for {', '.join(arrays)}, "
                f"got {MEDIA_TYPES[written]}, which holds one array"
            )
        written = "npz"
    if written == "npz":
        if len(arrays) > MAX_ARRAYS:
            raise PayloadTooLarge(f"expected at most {MAX_ARRAYS} arrays in a .npz file, the answer has {len(arrays)}")
        return _answer("npz", write_npz(arrays))
    (array,) = arrays.values()
    if written == "npy":
        return _answer("npy", write_npy(array))
    if written == "raw":
        shape, dtype = write_shape(array.shape).encode(), _DTYPE_NAMES[array.dtype].encode()
        return _answer("raw", [write_raw(array)], [(b"x-tensor-shape", shape), (b"x-tensor-dtype", dtype)])
    picture = side_by_side(asked.tensor, array, max_pixels=max_pixels) if asked.compare else array
    return _answer("png", [encode_png(picture)])


def _answer(written: Written, buffers: Sequence[bytes | memoryview], more: Headers | None = None) -> Answer:
    length = sum(map(len, buffers))
    headers = [
        _CONTENT_TYPES[written],
        (b"content-length", b"%d" % length),
        *(more or ()),
    ]
    return Answer(headers, buffers)


def _arrays(results: Sequence[Results], member: str, *, many: bool) -> dict[str, Tensor]:
    """Name every array: `tensor`, `indices`, `counts`, with the operator's place before it where there are several."""
    arrays: dict[str, Tensor] = {}
    for place, result in enumerate(results):
        prefix = f"{place}_" if many else ""
        arrays[prefix + member] = result.tensor
        if result.indices is not None:
            arrays[f"{prefix}indices"] = result.indices
        if result.counts is not None:
            arrays[f"{prefix}counts"] = result.counts
    return arrays


@lru_cache(1024)
def json_head(op: str, shape: tuple[int, ...], dtype: DType, member: str) -> bytes:
    """What stands before the numbers in a JSON answer of one array."""
    stated = write_json({"op": op, "shape": shape, "dtype": _DTYPE_NAMES[dtype]})
    return b'%b,"%b":' % (stated[:-1], member.encode())


def _json(asked: Asked, results: Sequence[Results], member: str) -> Answer:
    if asked.form == "nested" and not asked.many and results[0].indices is None and results[0].counts is None:
        array = results[0].tensor
        head, pieces = json_head(asked.jobs[0].op, array.shape, array.dtype, member), array_pieces(array)
        if len(pieces) == 1 and len(pieces[0]) <= _JOINED:
            return _answer("json", [b"%b%b}" % (head, pieces[0])])
        return _answer("json", [head, *pieces, b"}"])
    form: Literal["nested", "flat", "base64"] = (
        asked.form if asked.form == "flat" or asked.form == "base64" else "nested"  # noqa: PLR1714  # mypy narrows this
    )
    documents: list[dict[str, object]] = []
    for job, result in zip(asked.jobs, results, strict=True):
        array = result.tensor
        document: dict[str, object] = {
            "op": job.op,
            "shape": array.shape,
            "dtype": _DTYPE_NAMES[array.dtype],
            member: tensor_member(array, form),
        }
        if result.indices is not None:
            document["indices"] = tensor_member(result.indices, form)
        if result.counts is not None:
            document["counts"] = tensor_member(result.counts, form)
        documents.append(document)
    return _answer("json", json_pieces({"results": documents} if asked.many else documents[0]))

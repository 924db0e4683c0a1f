"""A JSON tensor request, read whole: its tensors as arrays, all else as plain Python. Nothing in it refers to the document."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from service.codecs.tensors.document import Document, Form
from service.codecs.tensors.dtypes import BOOL, DTYPES, DType, Tensor
from service.errors import InvalidParameter, InvalidTensor

MAX_OPS = 64
"""Operators on one upload: as many answers wait in memory together."""

_DTYPES: Mapping[str, DType] = {"labels": DTYPES["int64"], "indices": DTYPES["int64"], "boxes": DTYPES["float64"]}


@dataclass
class Op:
    """One of `ops`: its members that are no tensors, and those that are, by name."""

    parameters: dict[str, object]
    arrays: dict[str, Tensor]


@dataclass
class Members:
    """What is in a request.

    Attributes:
        names: of its members, in order.
        tensor: to be pooled.
        form: in which it came.
        parameters: what is neither a tensor nor `dtype` nor `ops`, unchecked.
        arrays: the tensors beside the tensor, by name.
        ops: None where the request has no such member.
    """

    names: tuple[str, ...]
    tensor: Tensor
    form: Form
    parameters: dict[str, object]
    arrays: dict[str, Tensor]
    ops: list[Op] | None


def read_members(document: Document, names: Collection[str]) -> Members:
    """Read a request.

    Args:
        document: parsed.
        names: of members that are tensors, beside `tensor`.

    Raises:
        ServiceError: Malformed, PayloadTooLarge, InvalidTensor, InvalidParameter.
        NeedsWalk: the document's `walk` is off, and a tensor needs one.
    """
    tensor = document.tensor("tensor")
    parameters = document.members({"tensor", "dtype", "ops", *names})
    arrays = _arrays(document, names, tensor.dtype)
    ops = _ops(document, names, tensor.dtype) if "ops" in document else None
    return Members(document.names, tensor, document.form("tensor"), parameters, arrays, ops)


def _ops(document: Document, names: Collection[str], like: DType) -> list[Op]:
    parts = document.parts("ops")
    if not 0 < len(parts) <= MAX_OPS:
        raise InvalidParameter(f"ops: expected 1 to {MAX_OPS} operators, got {len(parts)}")
    return [Op(part.members(names), _arrays(part, names, like)) for part in parts]


def _arrays(document: Document, names: Collection[str], like: DType) -> dict[str, Tensor]:
    return {name: read_beside(document, name, like) for name in document.names if name in names}


def read_beside(document: Document, name: str, like: DType) -> Tensor:
    """Read an array that stands beside the tensor: in the dtype of its name, else in the tensor's own where that is a float's."""
    if name == "mask":
        try:
            return document.tensor(name, BOOL)
        except InvalidTensor:
            return document.tensor(name, DTYPES["float32"])  # weights
    return document.tensor(name, _DTYPES.get(name) or (like if like.kind == "f" else DTYPES["float32"]))

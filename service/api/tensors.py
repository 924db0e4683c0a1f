"""A tensor request of any media type: the tensor, what is to be done with it, and in which form it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.api.parameters import add, array_names, flag, op_name
from service.codecs.images import decode
from service.codecs.multipart import Part, read_form
from service.codecs.tensors.document import Document, parse
from service.codecs.tensors.dtypes import BOOL, DType, Tensor, check_shape
from service.codecs.tensors.members import Members, read_beside, read_members
from service.codecs.tensors.npy import MAGIC, read_npy
from service.codecs.tensors.npz import read_npz
from service.codecs.tensors.raw import read_raw
from service.errors import InvalidParameter, InvalidTensor, Malformed, UnsupportedMediaType
from service.settings import Settings

Kind = Literal["json", "npy", "npz", "form", "raw", "image", "unsaid"]
Form = Literal["nested", "flat", "base64", "npy", "npz", "raw", "png"]

_KINDS: dict[str, Kind] = {
    "application/json": "json",
    "application/x-npy": "npy",
    "application/x-npz": "npz",
    "multipart/form-data": "form",
}
_UNSAID = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})  # the last one is curl's own
_TENSOR_NAMES = ("tensor", "image", "file")


@dataclass
class Job:
    """One operator to apply.

    Attributes:
        op: its name, unchecked.
        parameters: raw: JSON values, or strings from a query.
        arrays: that it takes beside the tensor, by name.
    """

    op: str
    parameters: Mapping[str, object]
    arrays: Mapping[str, Tensor]


@dataclass
class Asked:
    """What a request asks.

    Attributes:
        tensor: to be pooled.
        form: in which it came.
        jobs: at least one.
        many: whether they came as `ops`, so that the answer is a list.
        compare: whether the picture is wanted beside the pooled one.
    """

    tensor: Tensor
    form: Form
    jobs: list[Job]
    many: bool = False
    compare: bool = False


def kind_of_body(content_type: str, query: Mapping[str, object]) -> Kind:
    """Say what a body is by its Content-Type and the query; `unsaid` where its content will tell.

    Raises:
        UnsupportedMediaType (415): no type that is read here.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _KINDS:
        return _KINDS[media_type]
    if media_type.startswith("image/"):
        return "image"
    if media_type in _UNSAID:
        return "raw" if "shape" in query or "dtype" in query else "unsaid"
    raise UnsupportedMediaType(
        f"expected {', '.join(_KINDS)}, application/octet-stream with shape= and dtype=, or image/*, got another type"
    )


def read_request(
    kind: Kind,
    body: bytes | memoryview | Document | Members,
    content_type: str,
    query: dict[str, object],
    settings: Settings,
) -> Asked:
    """Read a body of a known kind.

    Args:
        kind: as `kind_of_body` says.
        body: bytes for forms and pictures; JSON may have been parsed, or read.
        content_type: the header.
        query: its parameters; taken over.
        settings: for the limits.

    Raises:
        ServiceError: Malformed, PayloadTooLarge, UnsupportedMediaType, InvalidTensor, InvalidImage, InvalidParameter.
    """
    if isinstance(body, Members):
        return _from_json(body, query)
    if not isinstance(body, Document):
        kind = _sniffed(body) if kind == "unsaid" else kind
        if kind == "json":
            body = parse(body, max_elements=settings.max_tensor_elements)
    if isinstance(body, Document):
        return _from_json(read_members(body, array_names()), query)
    if kind == "form":
        return _from_form(bytes(body), content_type, query, settings)
    limit = settings.max_tensor_elements
    arrays: dict[str, Tensor] = {}
    form: Form
    if kind == "npy":
        tensor, form = read_npy(body, max_elements=limit), "npy"
    elif kind == "npz":
        arrays, form = read_npz(body, max_elements=limit), "npz"
        tensor = _taken(arrays)
    elif kind == "raw":
        shape, dtype = (_text(query, name) for name in ("shape", "dtype"))
        tensor, form = read_raw(body, shape=shape, dtype=dtype, max_elements=limit), "raw"
    else:
        tensor, form = _picture(bytes(body), query, settings), "png"
    return _single(tensor, form, query, arrays, settings)


def _sniffed(body: bytes | memoryview) -> Kind:
    start = bytes(body[:64])
    if start.startswith(MAGIC):
        return "npy"
    if start.startswith(b"PK"):
        return "npz"
    return "json" if start.lstrip(b" \t\r\n").startswith(b"{") else "image"


def _text(query: dict[str, object], name: str) -> str:
    if name not in query:
        raise InvalidParameter(f"{name}: expected beside raw numbers, as in shape=8,64,56,56&dtype=float32, got none")
    return str(query.pop(name))


def _picture(data: bytes, parameters: dict[str, object], settings: Settings) -> Tensor:
    """Decode to (H,W,3) uint8, and say in the parameters that the channels are last."""
    pixels = decode(data, channels="RGB", max_pixels=settings.max_pixels)
    check_shape(pixels.shape, max_elements=settings.max_tensor_elements, itemsize=1, name="image")
    parameters.setdefault("layout", "channels_last")
    parameters.setdefault("spatial", 2)
    return pixels


def _single(
    tensor: Tensor, form: Form, parameters: dict[str, object], arrays: dict[str, Tensor], settings: Settings
) -> Asked:
    """Make the one job of a body that is not JSON; tensors that stand in its parameters as text are JSON."""
    if tensor.dtype == BOOL:  # which masks may be
        raise InvalidTensor("tensor: expected numbers, got bool")
    if "ops" in parameters:
        raise InvalidParameter("ops: expected in a JSON body only; elsewhere give one op")
    for name in array_names() & parameters.keys():
        text = parameters.pop(name)
        if name in arrays:
            raise InvalidParameter(f"{name}: expected once, is given as an array and as text")
        arrays[name] = _from_text(name, str(text), tensor.dtype, settings)
    compare = flag(parameters)
    return Asked(tensor, form, [Job(op_name(parameters), parameters, arrays)], compare=compare)


def _from_text(name: str, text: str, like: DType, settings: Settings) -> Tensor:
    document = parse(b'{"%b":%b}' % (name.encode(), text.encode()), max_elements=settings.max_tensor_elements)
    if document.names != (name,):
        raise InvalidTensor(f"{name}: expected one tensor as JSON, got more")
    return read_beside(document, name, like)


def _taken(arrays: dict[str, Tensor]) -> Tensor:
    """Take the tensor itself out of the arrays of a file: by name, or the only one."""
    for name in _TENSOR_NAMES:
        if name in arrays:
            return arrays.pop(name)
    if len(arrays) == 1:
        return arrays.popitem()[1]
    raise InvalidTensor(f"expected an array named tensor among the {len(arrays)} of the body, got none")


def _from_json(members: Members, query: dict[str, object]) -> Asked:
    parameters, arrays = members.parameters, members.arrays
    for name, value in query.items():
        add(parameters, name, value)
    compare = flag(parameters)
    if members.ops is None:
        return Asked(members.tensor, members.form, [Job(op_name(parameters), parameters, arrays)], compare=compare)
    if "op" in parameters:
        raise InvalidParameter("expected op or ops, got both")
    jobs = []
    for place, op in enumerate(members.ops):  # what stands beside `ops` holds for each that does not say otherwise
        said = {**parameters, **op.parameters}
        jobs.append(Job(op_name(said, f"ops[{place}]: "), said, {**arrays, **op.arrays}))
    return Asked(members.tensor, members.form, jobs, many=True, compare=compare)


def _from_form(body: bytes, content_type: str, query: dict[str, object], settings: Settings) -> Asked:
    parameters, arrays = query, dict[str, Tensor]()
    form: Form = "npy"
    texts: list[Part] = []
    for part in read_form(body, content_type):
        if bytes(part.data[:6]) == MAGIC:
            if part.name in arrays:
                raise InvalidParameter(f"{part.name[:64]!r} is given twice")
            arrays[part.name] = read_npy(
                part.data, max_elements=settings.max_tensor_elements, name=f"{part.name[:64]!r}"
            )
        elif part.file:
            if part.name not in _TENSOR_NAMES or part.name in arrays:
                raise InvalidTensor(
                    f"{part.name[:64]!r}: expected a .npy file, got another; the picture's name is image"
                )
            arrays[part.name], form = _picture(bytes(part.data), parameters, settings), "png"
        else:
            texts.append(part)
    for part in texts:
        try:
            text = str(part.data, "utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"{part.name[:64]!r}: expected text in UTF-8") from None
        if part.name == "tensor":
            if "tensor" in arrays:
                raise InvalidParameter("'tensor' is given twice")
            arrays["tensor"], form = _from_text("tensor", text, np.dtype(np.float32), settings), "nested"
        else:
            add(parameters, part.name, text)
    return _single(_taken(arrays), form, parameters, arrays, settings)

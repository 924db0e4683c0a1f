"""Names, datatypes and shapes of what a model takes and gives, for its metadata and its configuration."""

from __future__ import annotations

from typing import NamedTuple

from service.api.oip import images, pooling
from service.api.oip.served import Served
from service.codecs.oip.datatypes import BYTES, name_of
from service.codecs.tensors.dtypes import DTYPES
from service.runtime.model import Model

_ONNX_TYPES = {"float": "float32", "double": "float64"}  # the others have NumPy's names

_ANY_PLANE = (-1, -1, -1, -1)


class Signature(NamedTuple):
    """One input or output.

    Attributes:
        name: of it.
        datatype: the protocol's name.
        shape: -1 is any size; the first is that of the batch, where `batched`.
        batched: whether it is.
        channels_last: of pixels: whether the channels are last; None for what is no picture.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    batched: bool = True
    channels_last: bool | None = None


def inputs_of(served: Served) -> list[Signature]:
    """Give what a model takes. Of an image model, a request has one of them."""
    model = served.model
    if model is None:
        return [Signature(pooling.TENSOR, "FP32", _ANY_PLANE, False)]
    geometry = model.geometry
    plane, channels = (geometry.height or -1, geometry.width or -1), model.card.preprocessing.channel_count
    found = [
        Signature(images.IMAGES, "UINT8", (-1, *plane, channels), channels_last=True),
        Signature(images.IMAGE_BYTES, BYTES, (-1,)),
    ]
    own = model.own_input
    if own.name not in {images.IMAGES, images.IMAGE_BYTES}:
        last = own.layout == "NHWC"
        shape = (-1, *plane, channels) if last else (-1, channels, *plane)
        found.append(Signature(own.name, name_of(own.dtype), shape, channels_last=last))
    return found


def outputs_of(served: Served) -> list[Signature]:
    """Give what a model gives."""
    model = served.model
    if model is None:
        return [Signature(pooling.TENSOR, "FP32", _ANY_PLANE, False)]
    return [_output(model, name) for name in images.output_names(model)]


def _output(model: Model, name: str) -> Signature:
    if name == "probabilities":
        return Signature(name, "FP32", (-1, model.classes))
    place = model.scores_place if name == "logits" else model.embedding_place
    assert place is not None  # else it has no such name
    type_, shape = model.session.declared[place]
    element = type_.removeprefix("tensor(").removesuffix(")")
    dtype = DTYPES[_ONNX_TYPES.get(element, element)]
    sizes = (model.classes,) if name == "logits" else tuple(size or -1 for size in shape[1:])
    return Signature(name, name_of(dtype), (-1, *sizes))

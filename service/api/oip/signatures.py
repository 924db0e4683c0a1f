"""Names, datatypes and shapes of what a model takes and gives, for its metadata and its configuration."""

from __future__ import annotations

from typing import NamedTuple

from service.api.oip import images, pooling
from service.api.oip.configured import configured_input, configured_output, is_single, own_outputs, own_place
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
    """Give what a model takes. Of an image model, a request has one of them; of one with a config.pbtxt it is the graph's own."""
    model = served.model
    if model is None:
        return [Signature(pooling.TENSOR, "FP32", _ANY_PLANE, False)]
    geometry = model.geometry
    plane, channels = (geometry.height or -1, geometry.width or -1), model.card.preprocessing.channel_count
    own, configured = model.own_input, configured_input(model)
    last = own.layout == "NHWC"
    shape: tuple[int, ...] = (-1, *plane, channels) if last else (-1, channels, *plane)
    if configured is not None:
        shape = configured.dims if is_single(model) else (-1, *configured.dims)
    signature = Signature(own.name, name_of(own.dtype), shape, not is_single(model), last)
    if model.configuration is not None:
        return [signature]
    found = [
        Signature(images.IMAGES, "UINT8", (-1, *plane, channels), channels_last=True),
        Signature(images.IMAGE_BYTES, BYTES, (-1,)),
    ]
    return found if own.name in {images.IMAGES, images.IMAGE_BYTES} else [*found, signature]


def outputs_of(served: Served) -> list[Signature]:
    """Give what a model gives."""
    model = served.model
    if model is None:
        return [Signature(pooling.TENSOR, "FP32", _ANY_PLANE, False)]
    return [_output(model, name) for name in own_outputs(model) or images.output_names(model)]


def _output(model: Model, name: str) -> Signature:
    place = own_place(model, name)
    if place is None:
        if name == "probabilities":
            return Signature(name, "FP32", (-1, model.classes))
        place = model.scores_place if name == "logits" else model.embedding_place
    assert place is not None  # else it has no such name
    type_, shape = model.session.declared[place]
    element = type_.removeprefix("tensor(").removesuffix(")")
    dtype = DTYPES[_ONNX_TYPES.get(element, element)]
    sizes = (model.classes,) if place == model.scores_place else tuple(size or -1 for size in shape[1:])
    configured = configured_output(model, name)
    if configured is not None and configured.dims:
        single = is_single(model)
        return Signature(name, name_of(dtype), configured.dims if single else (-1, *configured.dims), not single)
    return Signature(name, name_of(dtype), (-1, *sizes))

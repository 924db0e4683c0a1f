"""Images that come as numbers: the network's own input, or pixels; with shape and dtype in the query, or as a .npy file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from service.api.inference import Sizes, run_each
from service.api.intake import Body
from service.api.state import State
from service.codecs.tensors.dtypes import check_shape, dtype_named, little_endian
from service.codecs.tensors.npy import read_npy
from service.codecs.tensors.raw import read_shape, write_shape
from service.errors import DeadlineExceeded, InvalidParameter, InvalidTensor, PayloadTooLarge
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.model import Model
from service.runtime.tick import Tick
from service.settings import Settings

_PLAIN_BODY = 2**22
"""Bytes of a .npy file that is read on the event loop: it is looked at, or copied where it is not in order, 1 ms at most."""


@dataclass(frozen=True, slots=True)
class Form:
    """What numbers are to a model, by their shape and dtype; checked before there are any.

    Attributes:
        model: that takes them.
        pixels: whether they are pixels, or the network's own input.
        count: of images.
        height: in pixels.
        width: in pixels.
        length: bytes of all of it.
        shape: as it was said.
        dtype: as it was said.
        tick: what runs them on the event loop; None where they go to a thread.
    """

    model: Model
    pixels: bool
    count: int
    height: int
    width: int
    length: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    tick: Tick | None

    @classmethod
    def of(cls, model: Model, shape: tuple[int, ...], dtype: np.dtype[Any], settings: Settings) -> Form:
        """Check a shape and a dtype.

        Raises:
            InvalidTensor (422): not what the model takes.
            InvalidImage (422): a size that it does not take.
            PayloadTooLarge (413): too many pixels or images.
        """
        pixels = dtype == np.uint8
        if pixels:
            channels = model.card.preprocessing.channel_count
            if len(shape) not in {3, 4} or shape[-1] != channels or 0 in shape:
                one = f"H,W,{channels}"
                raise InvalidTensor(f"shape: expected pixels ({one}) or (N,{one}), none of them 0, got {shape}")
            count, height, width = shape[0] if len(shape) == 4 else 1, *shape[-3:-1]
        else:
            count, height, width = model.own_input.axes_of(shape, dtype)
        if count > settings.max_images:
            raise PayloadTooLarge(f"expected at most {settings.max_images} images in a request, got {count}")
        if height * width > settings.max_pixels:
            raise PayloadTooLarge(f"expected at most {settings.max_pixels} pixels, the image has {width}x{height}")
        model.check_size(height, width)
        length = dtype.itemsize
        for size in shape:
            length *= size
        tick = (model if pixels else model.own_input).tick_for(height, width)
        return cls(model, pixels, count, height, width, length, shape, dtype, tick)

    @classmethod
    def declared(cls, model: Model, shape: str | None, dtype: str | None, settings: Settings) -> Form:
        """Check what a query says of raw numbers.

        Raises:
            InvalidParameter (422): one of the two is not there. InvalidTensor (422): one of them cannot be read. And as `of`.
        """
        if shape is None or dtype is None:
            missing = "shape" if shape is None else "dtype"
            raise InvalidParameter(
                f"{missing}: expected beside raw numbers, as in shape=1,28,28&dtype=float32, got none"
            )
        element = dtype_named(dtype)
        sizes = check_shape(read_shape(shape), max_elements=settings.max_tensor_elements, itemsize=element.itemsize)
        return cls.of(model, sizes, element, settings)

    def images(self, body: Body) -> Sequence[np.ndarray]:
        """See little-endian numbers as images: uint8 (H,W,bytes) each, as queues carry them; views of the body.

        Raises:
            InvalidTensor (422): they are more or fewer.
        """
        if len(body) != self.length:
            said = f"({write_shape(self.shape)}) {self.dtype}"
            raise InvalidTensor(f"expected {self.length} bytes for {said}, got {len(body)}")
        numbers = np.frombuffer(body, np.uint8)
        if self.count == 1:
            return [numbers.reshape(self.height, self.width, -1)]
        return list(numbers.reshape(self.count, self.height, self.width, -1))


async def run_numbers(
    state: State, model: Model, body: Body, ticket: Ticket, deadline: float, *, form: Form | None
) -> tuple[Sizes, Sequence[Answer], float]:
    """Take numbers to the model's outputs. Returns the images' sizes, their answers, and seconds of reading.

    Args:
        state: the app's.
        model: that runs them.
        body: the numbers.
        ticket: of the request.
        deadline: on the clock of `time.monotonic`.
        form: as the query says; None where the body is a .npy file, which says it itself.

    Raises:
        ServiceError: any of the tree in errors.py.
    """
    started = time.monotonic()
    if form is not None:
        found = form, form.images(body)
    elif len(body) <= _PLAIN_BODY:
        found = _from_npy(model, body, state.settings)
    else:
        reading = partial(_from_npy, model, body, state.settings)
        found = await asyncio.get_running_loop().run_in_executor(state.decoders, reading)
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the time limit passed before the numbers were read")
    form, images = found
    decode_s = time.monotonic() - started
    ticket.weigh(form.height * form.width * form.count, form.count)
    infer = model.infer if form.pixels else model.own_input.infer
    answers = await run_each([infer(image, deadline) for image in images])
    return [(form.height, form.width)] * form.count, answers, decode_s


def _from_npy(model: Model, body: Body, settings: Settings) -> tuple[Form, Sequence[np.ndarray]]:
    tensor = read_npy(body, max_elements=settings.max_tensor_elements)
    form = Form.of(model, tensor.shape, tensor.dtype, settings)
    return form, form.images(little_endian(tensor))

"""Images that come as numbers: the network's own input, or pixels; with shape and dtype in the query, or as a .npy file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from service.api.inference import Sizes, run_each
from service.api.intake import Body
from service.api.state import State
from service.codecs.tensors.npy import read_npy
from service.codecs.tensors.raw import read_raw
from service.errors import DeadlineExceeded, InvalidParameter, InvalidTensor, PayloadTooLarge
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.model import Model
from service.settings import Settings

_PLAIN_BODY = 2**22
"""Bytes that are read on the event loop: they are looked at, or copied where they are not aligned, 1 ms at most."""


async def read_and_run(
    state: State, model: Model, body: Body, ticket: Ticket, deadline: float, *, declared: tuple[str, str] | None
) -> tuple[Sizes, Sequence[Answer], float]:
    """Take numbers to the model's outputs. Returns the images' sizes, their answers, and seconds of reading.

    Args:
        state: the app's.
        model: that runs them.
        body: the numbers.
        ticket: of the request.
        deadline: on the clock of `time.monotonic`.
        declared: shape and dtype as text; None where the body is a .npy file, which says them itself.

    Raises:
        ServiceError: any of the tree in errors.py.
    """
    started = time.monotonic()
    settings = state.settings
    if len(body) <= _PLAIN_BODY:
        images = _read(model, body, declared, settings)
    else:
        images = await asyncio.get_running_loop().run_in_executor(
            state.decoders, _read, model, body, declared, settings
        )
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the time limit passed before the numbers were read")
    pixels = images[0].dtype == np.uint8
    size = images[0].shape[:2] if pixels else model.own_input.size_of(images[0])
    decode_s = time.monotonic() - started
    ticket.weigh(size[0] * size[1] * len(images), len(images))
    run = model.infer if pixels else model.own_input.infer
    answers = await run_each([run(image, deadline) for image in images])
    return [size] * len(images), answers, decode_s


def _read(model: Model, body: Body, declared: tuple[str, str] | None, settings: Settings) -> Sequence[np.ndarray]:
    """Read the images, at least one, all of one size that the model takes: uint8 (H,W,C) of pixels, else its own input.

    Raises:
        InvalidTensor (422): the numbers do not fit their shape, or the shape and dtype not the model.
        InvalidImage (422): a size that the model does not take.
        PayloadTooLarge (413): too many elements, pixels or images.
        UnsupportedMediaType (415), Malformed (400): no readable .npy file.
    """
    limit = settings.max_tensor_elements
    if declared is None:
        tensor = read_npy(body, max_elements=limit)
    else:
        tensor = read_raw(body, shape=declared[0], dtype=declared[1], max_elements=limit)
    if tensor.dtype == np.uint8:
        images = _pixels(model, tensor)
        height, width = images[0].shape[:2]
    else:
        images = model.own_input.split(tensor)
        height, width = model.own_input.size_of(images[0])
    if len(images) > settings.max_images:
        raise PayloadTooLarge(f"expected at most {settings.max_images} images in a request, got {len(images)}")
    if height * width > settings.max_pixels:
        raise PayloadTooLarge(f"expected at most {settings.max_pixels} pixels, the image has {width}x{height}")
    model.check_size(height, width)
    return images


def _pixels(model: Model, tensor: np.ndarray) -> Sequence[np.ndarray]:
    channels = model.card.preprocessing.channel_count
    if tensor.ndim not in {3, 4} or tensor.shape[-1] != channels or not tensor.size:
        raise InvalidTensor(
            f"shape: expected pixels (H,W,{channels}) or (N,H,W,{channels}), none of them 0, got {tensor.shape}"
        )
    return [tensor] if tensor.ndim == 3 else list(tensor)


def declared_in(shape: str | None, dtype: str | None) -> tuple[str, str]:
    """Give what the query says of raw numbers.

    Raises:
        InvalidParameter (422): one of the two is not there.
    """
    for name, said in (("shape", shape), ("dtype", dtype)):
        if said is None:
            raise InvalidParameter(f"{name}: expected beside raw numbers, as in shape=1,28,28&dtype=float32, got none")
    assert shape is not None
    assert dtype is not None
    return shape, dtype

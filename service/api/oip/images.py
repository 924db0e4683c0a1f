"""An image model as the protocol sees it: `images` or `image_bytes` in; `logits`, `probabilities`, `embedding` out.

One that has a config.pbtxt has its graph's own outputs beside, and these are what it gives unasked (configured.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request as Http

from service.api.images import Upload
from service.api.inference import Sizes, decode_and_run
from service.api.numbers import Form
from service.api.oip.configured import is_single, own_output, own_outputs, own_place
from service.api.oip.requests import check_inputs, check_outputs, own_parameters
from service.api.state import State
from service.codecs.oip.datatypes import BYTES, DATATYPES
from service.codecs.oip.request import Input, Request
from service.codecs.oip.response import Output
from service.errors import InvalidImage, InvalidParameter, InvalidTensor
from service.runtime.admission import Ticket
from service.runtime.batcher import Answer
from service.runtime.model import Model
from service.settings import Settings

IMAGES = "images"
"""Input: pixels, UINT8 (N,H,W,C); or the network's own input as its file has it."""

IMAGE_BYTES = "image_bytes"
"""Input: encoded pictures of any sizes, BYTES (N)."""

_OUTPUTS = ("logits", "probabilities", "embedding")
_WITHOUT_EMBEDDING = _OUTPUTS[:2]

Course = Coroutine[Any, Any, tuple[Sizes, Sequence[Answer], float]]


def input_names(model: Model) -> list[str]:
    """Give the names of a model's inputs, of which a request has one: also the graph's own, which clients of other servers know."""
    return list(dict.fromkeys([IMAGES, IMAGE_BYTES, model.own_input.name]))


def output_names(model: Model) -> tuple[str, ...]:
    """Give the names of a model's outputs, the graph's own first where clients know them."""
    named = _WITHOUT_EMBEDDING if model.embedding_place is None else _OUTPUTS
    own = own_outputs(model)
    return tuple(dict.fromkeys([*own, *named])) if own else named


def check(model: Model, request: Request) -> Input:
    """Check what a request asks of a model, before any of it is run. Returns its one input.

    Raises:
        InvalidTensor (422), InvalidParameter (422).
    """
    names = input_names(model)
    check_inputs(request, names, model.name)
    check_outputs(request, output_names(model), model.name)
    unknown = own_parameters(request.parameters)
    if unknown:
        raise InvalidParameter(f"parameters: model {model.name} has none, got {min(unknown)[:64]!r}")
    if len(request.inputs) != 1:
        raise InvalidTensor(f"inputs: expected one of {', '.join(names)}, got {len(request.inputs)} inputs")
    (given,) = request.inputs.values()
    if (given.datatype == BYTES) != (given.name == IMAGE_BYTES):
        expected = BYTES if given.name == IMAGE_BYTES else f"UINT8 or {_own_datatype(model)}"
        raise InvalidTensor(f"{given.name}: expected datatype {expected}, got {given.datatype}")
    return given


def _own_datatype(model: Model) -> str:
    return next(name for name, dtype in DATATYPES.items() if dtype == model.own_input.dtype)


def form_of(model: Model, given: Input, settings: Settings) -> Form:
    """Say what numbers are to a model.

    Raises:
        InvalidTensor (422), InvalidImage (422), PayloadTooLarge (413): as `Form.of`.
    """
    single = given.name == model.own_input.name and is_single(model)
    if len(given.shape) != 4 and not (single and len(given.shape) == 3):
        sizes = "3 sizes, or 4 with the batch first" if single else "4 sizes, the first of them of the batch"
        raise InvalidTensor(f"{given.name}: expected a shape of {sizes}, got {given.shape}")
    return Form.of(model, given.shape, DATATYPES[given.datatype], settings)


def run_pictures(state: State, model: Model, given: Input, ticket: Ticket, deadline: float, *, http: Http) -> Course:
    """Take encoded pictures to the model's outputs, in its queue.

    Raises:
        ServiceError: any of the tree in errors.py.
    """
    return decode_and_run(state, model, Upload(_pictures(given)), ticket, deadline, request=http)


def _pictures(given: Input) -> list[bytes]:
    """Give the encoded pictures. No encoded picture is text, so that strings in JSON are base64."""
    if len(given.shape) not in {1, 2} or given.shape[1:] not in {(), (1,)} or not given.elements:
        raise InvalidTensor(f"{given.name}: expected a shape (N) or (N,1) with N >= 1, got {given.shape}")
    if not given.text:
        return list(given.elements)
    pictures = []
    for place, text in enumerate(given.elements):
        try:
            pictures.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidImage(
                f"{given.name}[{place}]: expected base64 (in JSON; pictures as they are go behind it), got other characters"
            ) from None
    return pictures


def wanted_names(model: Model, request: Request) -> Sequence[str]:
    """Give the names of the outputs that are wanted, in their order."""
    if request.outputs is not None:
        return [wanted.name for wanted in request.outputs]
    return own_outputs(model) or output_names(model)


def output_of(model: Model, name: str, answer: Answer) -> np.ndarray:
    """Give one output of one image, without its batch axis."""
    place = own_place(model, name)
    if place is not None:
        return answer.outputs[place]
    if name == "logits":
        return model.scores(answer)
    if name == "probabilities":
        return model.ranking(answer)[0]
    assert model.embedding_place is not None  # else it has no such name
    return answer.outputs[model.embedding_place]


def outputs_of(model: Model, request: Request, answers: Sequence[Answer]) -> list[Output]:
    """Gather what is wanted of the answers, (N, …) each."""
    outputs = []
    for name in wanted_names(model, request):
        place = own_place(model, name)
        if place is not None:
            outputs.append(own_output(model, name, place, answers))
            continue
        rows = [output_of(model, name, answer) for answer in answers]
        tensor = rows[0][None] if len(rows) == 1 else np.stack(rows)
        outputs.append(Output(name, tensor, True, () if name == "embedding" else model.card.labels))
    return outputs

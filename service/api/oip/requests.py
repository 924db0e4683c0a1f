"""A body of the protocol to a request, whatever it is compressed with; what of it may stand in `parameters`."""

from __future__ import annotations

from collections.abc import Collection

from service.api.intake import Body
from service.api.oip.headers import Said
from service.api.timing import Timing
from service.api.turns import Turns
from service.codecs.compression import decompress
from service.codecs.oip.declared import Limits
from service.codecs.oip.parameters import Parameters, flag, whole
from service.codecs.oip.request import Input, Request, read_request
from service.errors import InvalidParameter, InvalidTensor, Malformed
from service.reader.channel import Task
from service.reader.slots import MAX_BODY
from service.runtime.admission import Admission, Ticket
from service.settings import Settings

_SMALL_JSON = 2**16
"""Bytes of JSON that are parsed on the event loop."""

_PLAIN_BODY = 2**22
"""Bytes of a body of which the rest is numbers, which are looked at, not parsed."""

_SMALL_BODY = 2**16
"""Bytes above which a request is admitted before its body is read."""

_TRITONS = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}
)
"""Request parameters that Triton reserves. Sequences and priorities mean nothing to models without a state."""

_MLSERVERS = frozenset({"content_type", "headers"})


def is_quick(said: Said, length: int) -> bool:
    """Whether reading a body takes next to no time, whatever is in it."""
    json = length if said.header_length is None else said.header_length
    return said.encoding is None and json <= _SMALL_JSON and length <= _PLAIN_BODY


def read_body(body: Body, said: Said, settings: Settings, *, raw: str | None) -> Request:
    """Read a body.

    Args:
        body: as it came.
        said: by its headers.
        settings: for the limits.
        raw: name of the input of datatype BYTES that a body without any JSON is; None where the model has no such.

    Raises:
        Malformed (400), InvalidTensor (422), PayloadTooLarge (413): as `decompress` and codecs/oip/request.py.
    """
    if said.encoding is not None:
        body = decompress(body, said.encoding, max_bytes=settings.max_body_bytes)
    if said.header_length == 0:
        if raw is None:
            raise Malformed(
                "Inference-Header-Content-Length: expected more than 0, this model's input has no shape of its own"
            )
        only = Input(raw, "BYTES", (1,), {}, None, [bytes(body)], False)
        return Request(None, {}, {raw: only}, None, True)
    return read_request(body, said.header_length, Limits(settings.max_tensor_elements, settings.max_images))


async def read_apart(turns: Turns, body: Body, said: Said, deadline: float, timing: Timing) -> Request | None:
    """Have another process read a body that is JSON alone; None where it is not, or where that process has no time.

    Raises:
        ServiceError: as `read_body`. DeadlineExceeded (504): it was not read by the deadline.
    """
    if said.encoding is not None or said.header_length is not None or len(body) > MAX_BODY:
        return None
    request = await turns.apart(Task.PROTOCOL, body, deadline, timing)
    assert request is None or isinstance(request, Request)  # by its task
    return request


def admit_early(admission: Admission, said: Said) -> Ticket | None:
    """Admit a request whose body is large or of unknown length, on its headers; refuse another while there is a crowd.

    Returns:
        None where it is to be admitted once its body is here, if what it asks is not done at once.

    Raises:
        Overloaded: 429.
    """
    plain = said.plain
    if plain.length is None or plain.length > _SMALL_BODY:
        return admission.admit(plain.limit_s, plain.length)
    if admission.waiting:
        admission.refuse(plain.limit_s)
    return None


def own_parameters(parameters: Parameters) -> dict[str, object]:
    """Give the parameters that are the model's own; those of the protocol are checked and left out.

    Raises:
        Malformed (400): one of the protocol's has a value that it cannot have.
    """
    if not parameters:
        return {}
    for name in ("sequence_start", "sequence_end"):
        flag(parameters, name, "parameters")
    whole(parameters, "priority", "parameters")
    if not isinstance(parameters.get("sequence_id"), str):
        whole(parameters, "sequence_id", "parameters")
    reserved = _TRITONS | _MLSERVERS
    return {name: value for name, value in parameters.items() if name not in reserved}


def limit_s(parameters: Parameters, at_most: float) -> float:
    """Seconds that the caller will wait: its parameter `timeout`, in microseconds (0 is as none), or what its headers say.

    Raises:
        Malformed (400): it is no such number.
    """
    timeout_us = whole(parameters, "timeout", "parameters")
    return min(at_most, timeout_us / 1e6) if timeout_us else at_most


def check_outputs(request: Request, names: Collection[str], model: str) -> None:
    """Refuse outputs that a model does not have.

    Raises:
        InvalidParameter (422): says which it has.
    """
    for wanted in request.outputs or ():
        if wanted.name not in names:
            raise InvalidParameter(f"outputs: model {model} has {', '.join(names)}, got {wanted.name[:64]!r}")


def check_inputs(request: Request, names: Collection[str], model: str) -> None:
    """Refuse inputs that a model does not have.

    Raises:
        InvalidTensor (422): says which it has.
    """
    for name in request.inputs:
        if name not in names:
            raise InvalidTensor(f"inputs: model {model} takes {', '.join(names)}, got {name[:64]!r}")

"""The operators as the protocol sees them: a model `pool` whose request parameters are the operator's."""

from __future__ import annotations

from collections.abc import Mapping

from service.api.oip.requests import check_inputs, check_outputs, own_parameters
from service.api.parameters import array_names, op_name
from service.codecs.oip.datatypes import BYTES
from service.codecs.oip.request import Request
from service.codecs.oip.response import Output
from service.codecs.tensors.dtypes import Tensor
from service.errors import InvalidParameter, InvalidTensor
from service.runtime.pooling.pooler import Course, Pooler
from service.runtime.pooling.prepared import Pooled

NAME = "pool"
VERSION = "1"
TENSOR = "tensor"
"""Its input, and its first output."""

OUTPUTS = {TENSOR: "", "indices": "return_indices", "counts": "return_counts"}
"""Its outputs, and the parameters that ask for them."""


def prepare(pooler: Pooler, request: Request) -> Course:
    """Check a request and have its operator prepared.

    Raises:
        InvalidTensor (422), InvalidParameter (422), PayloadTooLarge (413).
    """
    check_inputs(request, [TENSOR, *sorted(array_names())], NAME)
    check_outputs(request, OUTPUTS, NAME)
    arrays: dict[str, Tensor] = {}
    for name, given in request.inputs.items():
        if given.tensor is None:
            raise InvalidTensor(f"{name}: expected numbers, got {BYTES}")
        arrays[name] = given.tensor
    if TENSOR not in arrays:
        raise InvalidTensor(f"inputs: expected {TENSOR}, got none")
    tensor = arrays.pop(TENSOR)
    if tensor.dtype.kind == "b":
        raise InvalidTensor(f"{TENSOR}: expected numbers, got BOOL")
    parameters = own_parameters(request.parameters)
    _check_asked(request, parameters)
    return pooler.prepare("pool", op_name(parameters), parameters, arrays, tensor.shape, tensor.dtype)


def _check_asked(request: Request, parameters: Mapping[str, object]) -> None:
    for wanted in request.outputs or ():
        switch = OUTPUTS[wanted.name]
        if switch and parameters.get(switch) not in {True, "true"}:
            raise InvalidParameter(f"outputs: {wanted.name} comes with the parameter {switch}=true only")


def outputs_of(pooled: Pooled) -> list[Output]:
    """Give what came out."""
    found = {TENSOR: pooled.tensor, "indices": pooled.indices, "counts": pooled.counts}
    return [Output(name, tensor, False) for name, tensor in found.items() if tensor is not None]

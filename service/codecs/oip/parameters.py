"""The `parameters` extension: what may stand in one, and those whose meaning is fixed."""

from __future__ import annotations

from collections.abc import Mapping

from service.codecs.tensors.document import Document
from service.codecs.tensors.dtypes import kind_of
from service.errors import Malformed

Parameters = Mapping[str, str | int | float | bool]

_SHARED_MEMORY = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")

_NONE: Parameters = {}


def read_parameters(document: Document, place: str) -> Parameters:
    """Read the member `parameters` of an object; null is as if it were not there.

    Args:
        document: the request, one of its inputs or one of its outputs.
        place: what the messages call it.

    Raises:
        Malformed (400): no object, or a value that is neither string, number nor boolean; or one that asks for shared memory.
    """
    if "parameters" not in document:
        return _NONE
    found = document.part("parameters")
    if found is None:
        return _NONE
    parameters: dict[str, str | int | float | bool] = {}
    for name, value in found.members().items():
        if not isinstance(value, str | int | float | bool):
            raise Malformed(
                f"{place}: expected a string, a number or a boolean for {name[:64]!r} (several numbers as '2,3'), "
                f"got {kind_of(value)}"
            )
        parameters[name] = value
    for name in _SHARED_MEMORY:
        if name in parameters:
            raise Malformed(f"{place}: {name} is not supported; send data, or binary_data_size and a tail")
    return parameters


def whole(parameters: Parameters, name: str, place: str, *, least: int = 0) -> int | None:
    """Read a parameter that is an integer; None where it is not there.

    Raises:
        Malformed (400): another kind of value, or one that is too small.
    """
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or value < least:
        got = "a smaller one" if type(value) is int else kind_of(value)
        raise Malformed(f"{place}.{name}: expected an integer >= {least}, got {got}")
    return value


def flag(parameters: Parameters, name: str, place: str) -> bool | None:
    """Read a parameter that is a boolean; None where it is not there.

    Raises:
        Malformed (400): another kind of value.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise Malformed(f"{place}.{name}: expected true or false, got {kind_of(value)}")

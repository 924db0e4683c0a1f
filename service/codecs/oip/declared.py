"""What an inference request declares: names, shapes, datatypes, where the bytes are, and what is wanted of the outputs.

Everything is checked here, before anything of a tensor's size is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from simdjson import Array

from service.codecs.oip.datatypes import DATATYPES, check_datatype
from service.codecs.oip.parameters import Parameters, flag, read_parameters, whole
from service.codecs.tensors.document import Document
from service.codecs.tensors.dtypes import check_shape, kind_of
from service.errors import InvalidTensor, Malformed

MAX_TENSORS = 64
"""Inputs, and outputs, of one request."""

_MAX_ID = 1024  # characters of a request's own id


class Limits(NamedTuple):
    """What a request may bring.

    Attributes:
        elements: of one tensor.
        strings: of one tensor of BYTES; each is an object in memory.
    """

    elements: int
    strings: int


class Wanted(NamedTuple):
    """An output that is asked for.

    Attributes:
        name: unique in its request.
        binary: whether it goes into the tail.
        classes: how many of the greatest are wanted, as strings; 0: the numbers themselves.
    """

    name: str
    binary: bool
    classes: int


class Slot(NamedTuple):
    """An input as it is declared.

    Attributes:
        name: unique in its request.
        datatype: one of DATATYPES, or BYTES.
        shape: sizes, >= 0.
        parameters: of this input.
        size: bytes of the tail; None where it is in the JSON.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters
    size: int | None


class Declared(NamedTuple):
    """A request without its numbers; the members are those of `Request` (request.py)."""

    id: str | None
    parameters: Parameters
    slots: tuple[Slot, ...]
    outputs: tuple[Wanted, ...] | None
    binary: bool


def declare(document: Document, inputs: Sequence[Document], limits: Limits) -> Declared:
    """Check everything that is declared.

    Args:
        document: the request.
        inputs: its inputs.
        limits: of their shapes.

    Raises:
        Malformed (400): not of the protocol's form; names that are there twice; inputs with both `data` and bytes, or neither.
        InvalidTensor (422): shapes and datatypes that are none, or bytes that do not fit them.
        PayloadTooLarge (413): more than the limits allow.
    """
    name = document.value("id")
    if name is not None and (not isinstance(name, str) or len(name) > _MAX_ID):
        got = f"{len(name)}" if isinstance(name, str) else kind_of(name)
        raise Malformed(f"id: expected a string of at most {_MAX_ID} characters, got {got}")
    parameters = read_parameters(document, "parameters")
    for reserved in parameters:
        if reserved.startswith("triton_"):
            raise Malformed(f"parameters: names that begin with triton_ are reserved, got {reserved[:64]!r}")
    binary = flag(parameters, "binary_data_output", "parameters") or False
    slots = tuple(_slot(one, f"inputs[{place}]", limits) for place, one in enumerate(inputs))
    _check_names([slot.name for slot in slots], "inputs")
    outputs = None
    if document.value("outputs") is not None:
        found = objects(document, "outputs")
        if found:  # an empty list is as none: all of them
            outputs = tuple(_wanted(one, f"outputs[{place}]", binary) for place, one in enumerate(found))
            _check_names([output.name for output in outputs], "outputs")
    return Declared(name, parameters, slots, outputs, binary)


def objects(document: Document, name: str) -> list[Document]:
    """Give the objects of `inputs` or `outputs`.

    Raises:
        Malformed (400): no list of objects, or more than MAX_TENSORS of them.
    """
    value = document.value(name)
    if isinstance(value, Array) and len(value) > MAX_TENSORS:
        raise Malformed(f"{name}: expected at most {MAX_TENSORS}, got more")
    return document.parts(name)


def _check_names(names: list[str], place: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise Malformed(f"{place}: expected each name once, {twice[:64]!r} is there twice")


def _name(document: Document, place: str) -> str:
    name = document.value("name")
    if not isinstance(name, str) or not name:
        got = "an empty one" if isinstance(name, str) else kind_of(name)
        raise Malformed(f"{place}.name: expected a string, got {got}")
    return name


def _slot(document: Document, place: str, limits: Limits) -> Slot:
    name = _name(document, place)
    datatype = check_datatype(document.value("datatype"), f"{place}.datatype")
    sizes = document.value("shape")
    if not isinstance(sizes, Array):
        raise InvalidTensor(f"{place}.shape: expected an array of integers, got {kind_of(sizes)}")
    dtype = DATATYPES.get(datatype)
    most, itemsize = (limits.strings, 1) if dtype is None else (limits.elements, dtype.itemsize)
    shape = check_shape(sizes, max_elements=most, itemsize=itemsize, name=f"{place}.shape")
    parameters = read_parameters(document, f"{place}.parameters")
    size = whole(parameters, "binary_data_size", f"{place}.parameters")
    if ("data" in document) == (size is not None):
        got = "neither" if size is None else "both"
        raise Malformed(f"{place}: expected one of data and parameters.binary_data_size, got {got}")
    if dtype is not None and size is not None and size != math.prod(shape) * dtype.itemsize:
        expected = math.prod(shape) * dtype.itemsize
        raise InvalidTensor(
            f"{place}.parameters.binary_data_size: expected {expected} by shape and datatype, got {size}"
        )
    return Slot(name, datatype, shape, parameters, size)


def _wanted(document: Document, place: str, default: bool) -> Wanted:
    name = _name(document, place)
    parameters = read_parameters(document, f"{place}.parameters")
    binary = flag(parameters, "binary_data", f"{place}.parameters")
    classes = whole(parameters, "classification", f"{place}.parameters", least=1)
    return Wanted(name, default if binary is None else binary, classes or 0)

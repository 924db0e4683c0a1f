"""An inference request: JSON, or JSON with a tail of bytes, to inputs and what is wanted of the outputs.

A tail is looked at where it lies; nothing of it is copied but what is not aligned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from simdjson import Array

from service.codecs.oip.datatypes import DATATYPES
from service.codecs.oip.declared import Declared, Limits, Slot, Wanted, declare, objects
from service.codecs.oip.elements import read_elements, read_strings
from service.codecs.oip.parameters import Parameters
from service.codecs.tensors.document import parse
from service.codecs.tensors.dtypes import BOOL, DType, Tensor, from_bytes, kind_of
from service.codecs.tensors.long_lists import cut, pieces
from service.codecs.tensors.nested import count_arrays, read_array
from service.errors import InvalidTensor, Malformed

_MAX_REMEMBERED = 2048
"""Bytes of JSON before a tail that are remembered: clients send the same again and again, with other bytes behind it."""


class Input(NamedTuple):
    """A tensor that came.

    Attributes:
        name: unique in its request.
        datatype: one of DATATYPES, or BYTES.
        shape: sizes, >= 0.
        parameters: of this input.
        tensor: (shape), read-only where it came as bytes; None for BYTES.
        elements: of BYTES, row-major; else empty.
        text: whether it came as JSON.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters
    tensor: Tensor | None
    elements: Sequence[bytes]
    text: bool


class Request(NamedTuple):
    """An inference request.

    Attributes:
        id: the caller's name for it; None if it gave none.
        parameters: of the request.
        inputs: in their order.
        outputs: None: all there are.
        binary: whether outputs that are not listed go into the tail.
    """

    id: str | None
    parameters: Parameters
    inputs: Mapping[str, Input]
    outputs: tuple[Wanted, ...] | None
    binary: bool


def read_request(body: bytes | memoryview, header_length: int | None, limits: Limits) -> Request:
    """Read a request.

    Args:
        body: not compressed.
        header_length: bytes of JSON at its beginning, as `Inference-Header-Content-Length` says; None: all of it.
        limits: checked by what is declared.

    Raises:
        Malformed (400): no JSON, or not of the protocol's form; a length that does not fit; names that are there twice; inputs with
            both `data` and bytes, or neither; bytes that are left over.
        InvalidTensor (422): numbers that do not fit their shape and datatype; says which, what was expected and what came.
        PayloadTooLarge (413): more elements than the limits allow.
    """
    if header_length is None:
        text, tail = bytes(body), memoryview(b"")
    else:
        if not 0 < header_length <= len(body):
            raise Malformed(
                f"Inference-Header-Content-Length: expected 1 to {len(body)} (the body's bytes), got another number"
            )
        text, tail = bytes(body[:header_length]), memoryview(body)[header_length:]
        if header_length <= _MAX_REMEMBERED and b'"data"' not in text:
            declared = _remembered(text, limits)
            return _filled(declared, _from_tail(declared.slots, tail))
    left = cut(text, b"data")
    document = parse(left.text, max_elements=limits.elements)
    inputs = objects(document, "inputs")
    declared = declare(document, inputs, limits)
    binary = _from_tail(declared.slots, tail)
    elsewhere = None
    unread = dict(left.lists)
    for place, (slot, one) in enumerate(zip(declared.slots, inputs, strict=True)):
        if slot.size is None:
            value = one.value("data")
            numbers = left.find(value)
            if numbers is not None:
                unread = {name: others for name, others in unread.items() if others is not numbers}
                binary[slot.name] = _from_pieces(slot, numbers, f"inputs[{place}].data", limits)
                continue
            if elsewhere is None:
                elsewhere = left.text.count(b"[") - sum(count_arrays(document.value(name)) for name in document.names)
            binary[slot.name] = _from_json(slot, value, f"inputs[{place}].data", elsewhere, limits)
    for numbers in unread.values():  # of members that the protocol does not have
        for _ in pieces(numbers):
            pass
    return _filled(declared, {slot.name: binary[slot.name] for slot in declared.slots})


def _filled(declared: Declared, inputs: Mapping[str, Input]) -> Request:
    return Request(declared.id, declared.parameters, inputs, declared.outputs, declared.binary)


@lru_cache(256)
def _remembered(text: bytes, limits: Limits) -> Declared:
    document = parse(text, max_elements=limits.elements)
    return declare(document, objects(document, "inputs"), limits)


def _from_tail(slots: Sequence[Slot], tail: memoryview) -> dict[str, Input]:
    """Cut the tail into the inputs that lie in it, in their order."""
    found: dict[str, Input] = {}
    offset = 0
    for slot in slots:
        if slot.size is None:
            continue
        if slot.size > len(tail) - offset:
            raise InvalidTensor(
                f"input {slot.name[:64]!r}: expected {slot.size} bytes behind the JSON by its binary_data_size, "
                f"got {len(tail) - offset}; Inference-Header-Content-Length says where the JSON ends"
            )
        data = tail[offset : offset + slot.size]
        offset += slot.size
        dtype = DATATYPES.get(slot.datatype)
        if dtype is None:
            elements = read_elements(data, math.prod(slot.shape), f"input {slot.name[:64]!r}")
            found[slot.name] = Input(*slot[:4], None, elements, False)
        else:
            found[slot.name] = Input(*slot[:4], _numbers(data, dtype, slot), (), False)
    if offset != len(tail):
        raise Malformed(f"expected {offset} bytes behind the JSON by the inputs' binary_data_size, got {len(tail)}")
    return found


def _numbers(data: memoryview, dtype: DType, slot: Slot) -> Tensor:
    if dtype == BOOL and len(data) and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidTensor(f"input {slot.name[:64]!r}: expected bytes 0 and 1 for BOOL, got another")
    return from_bytes(data, dtype.newbyteorder("<"), slot.shape)


def _from_json(slot: Slot, value: object, place: str, elsewhere: int, limits: Limits) -> Input:
    """Read numbers or strings, nested as the shape says or in one list.

    `elsewhere` is the `[` of the document beyond those of all lists that are what they seem (nested.py).
    """
    if not isinstance(value, Array):
        raise InvalidTensor(f"{place}: expected an array, got {kind_of(value)}")
    dtype = DATATYPES.get(slot.datatype)
    count = math.prod(slot.shape)
    if dtype is None:
        return Input(*slot[:4], None, read_strings(value, slot.shape, place), True)
    if dtype == BOOL:
        _check_booleans(value, place)
    brackets = count_arrays(value) + elsewhere
    tensor = read_array(value, dtype, max_elements=limits.elements, name=place, brackets=brackets)
    if tensor.shape != slot.shape:
        empty = not count and tensor.shape == slot.shape[: tensor.ndim]  # [[], []] for (2, 0, 3)
        if not empty and (tensor.ndim != 1 or tensor.size != count):
            raise InvalidTensor(
                f"{place}: expected {count} numbers by the shape {list(slot.shape)}, in one list or nested so, "
                f"got {list(tensor.shape)}"
            )
        tensor = tensor.reshape(slot.shape)
    return Input(*slot[:4], tensor, (), True)


def _from_pieces(slot: Slot, numbers: memoryview, place: str, limits: Limits) -> Input:
    """Read a long list of numbers; a place in it is written as `data[131072:][5]`, the sixth from there on."""
    dtype = DATATYPES.get(slot.datatype)
    count = math.prod(slot.shape)
    if dtype is None:
        raise InvalidTensor(f"{place}[0]: expected a string, got something else")
    parts: list[Tensor] = []
    size = 0
    for piece in pieces(numbers):
        here = f"{place}[{size}:]"
        if dtype == BOOL:
            _check_booleans(piece, here)
        parts.append(read_array(piece, dtype, max_elements=limits.elements, name=here, brackets=1, flat=True))
        size += parts[-1].size
        if size > count:
            raise InvalidTensor(f"{place}: expected {count} numbers by the shape {list(slot.shape)}, got more")
    if size != count:
        raise InvalidTensor(f"{place}: expected {count} numbers by the shape {list(slot.shape)}, got {size}")
    return Input(*slot[:4], np.concatenate(parts).reshape(slot.shape), (), True)


def _check_booleans(value: Array, place: str, depth: int = 0) -> None:
    for index, item in enumerate(value):
        if isinstance(item, Array) and depth < 32:
            _check_booleans(item, f"{place}[{index}]", depth + 1)
        elif not isinstance(item, bool):
            raise InvalidTensor(f"{place}[{index}]: expected true or false, got {kind_of(item)}")

"""Requests of the protocol: what is read of them, in every form."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from service.codecs.oip.datatypes import DATATYPES
from service.errors import InvalidTensor
from tests.service.codecs.oip.documents import binary, one, read

NUMERIC = sorted(set(DATATYPES) - {"BOOL"})


def drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = DATATYPES[name]
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,), (), (1, 1), (0,), (2, 0, 3)])
def test_numbers_come_as_they_were(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> None:
    x = drawn(rng, name, shape)
    members = {"name": "x", "shape": list(shape), "datatype": name}
    exact = x.astype(np.float64) if x.dtype == np.float16 else x  # whose tolist() is decimal, and longer
    forms = [
        read({"inputs": [{**members, "data": exact.reshape(-1).tolist()}]}),
        read({"inputs": [{**members, "parameters": {"binary_data_size": x.nbytes}}]}, x.tobytes()),
    ]
    if shape:
        forms.append(read({"inputs": [{**members, "data": exact.tolist()}]}))
    for request in forms:
        tensor = request.inputs["x"].tensor
        assert tensor is not None
        assert (tensor.dtype, tensor.shape) == (x.dtype, shape)
        assert np.array_equal(tensor, x)


def test_half_precision_in_json_is_rounded_once(rng: np.random.Generator) -> None:
    values = rng.normal(size=500) * 10.0 ** rng.integers(-8, 5, 500)
    values = values[np.abs(values) < 65000]
    tensor = read(one(shape=[len(values)], datatype="FP16", data=values.tolist())).inputs["x"].tensor
    assert tensor is not None
    assert np.array_equal(tensor, values.astype(np.float16))


def test_booleans(rng: np.random.Generator) -> None:
    x = rng.random((3, 4)) < 0.5
    for data in (x.tolist(), x.reshape(-1).tolist()):
        tensor = read(one(shape=[3, 4], datatype="BOOL", data=data)).inputs["x"].tensor
        assert tensor is not None
        assert tensor.dtype == bool
        assert np.array_equal(tensor, x)
    tail = binary(12, shape=[3, 4], datatype="BOOL")
    assert np.array_equal(read(tail, x.tobytes()).inputs["x"].tensor, x)  # type: ignore[arg-type]
    with pytest.raises(InvalidTensor, match="bytes 0 and 1"):
        read(tail, bytes([2] * 12))


def test_strings_of_bytes(rng: np.random.Generator) -> None:
    elements = [rng.bytes(int(n)) for n in rng.integers(0, 50, 6)]
    tail = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    found = read(binary(len(tail), shape=[3, 2], datatype="BYTES"), tail).inputs["x"]
    assert (list(found.elements), found.text, found.tensor) == (elements, False, None)
    for data in (["a", "ü", "", "\U0001f600"], [["a", "ü"], ["", "\U0001f600"]]):
        found = read(one(datatype="BYTES", data=data)).inputs["x"]
        assert (list(found.elements), found.text) == ([b"a", "ü".encode(), b"", "\U0001f600".encode()], True)


def test_tail_is_cut_in_the_order_of_those_inputs_that_have_bytes(rng: np.random.Generator) -> None:
    a, b = rng.integers(0, 100, 3, np.int16), rng.normal(size=(2, 2))
    document = {
        "inputs": [
            {"name": "a", "shape": [3], "datatype": "INT16", "parameters": {"binary_data_size": 6}},
            {"name": "between", "shape": [1], "datatype": "INT8", "data": [7]},
            {"name": "b", "shape": [2, 2], "datatype": "FP64", "parameters": {"binary_data_size": 32}},
        ]
    }
    found = read(document, a.tobytes() + b.tobytes()).inputs
    assert list(found) == ["a", "between", "b"]
    for name, expected in (("a", a), ("b", b), ("between", [7])):
        assert np.array_equal(found[name].tensor, expected)  # type: ignore[arg-type]


def test_outputs_and_parameters() -> None:
    request = read(
        {
            **one(parameters={"content_type": "np"}),
            "id": "an id",
            "parameters": {"binary_data_output": True, "p": 2.5, "op": "gem"},
            "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False, "classification": 3}}],
            "model_name": "clients send this, too",
        }
    )
    assert request.id == "an id"
    assert request.parameters == {"binary_data_output": True, "p": 2.5, "op": "gem"}
    assert request.outputs is not None
    assert [tuple(output) for output in request.outputs] == [("a", True, 0), ("b", False, 3)]
    assert read(one()).outputs is None
    assert read({**one(), "outputs": [], "id": None, "parameters": None}).outputs is None


def test_the_same_json_before_other_bytes_gives_other_numbers(rng: np.random.Generator) -> None:
    for _ in range(3):
        x = rng.normal(size=(2, 2)).astype(np.float32)
        assert np.array_equal(read(binary(16), x.tobytes()).inputs["x"].tensor, x)  # type: ignore[arg-type]


def test_many_inputs_with_nested_data(rng: np.random.Generator) -> None:
    arrays = {f"x{place}": rng.normal(size=(3, 2, place + 1)) for place in range(4)}
    inputs = [
        {"name": name, "shape": list(x.shape), "datatype": "FP64", "data": x.tolist()} for name, x in arrays.items()
    ]
    found = read({"inputs": inputs, "parameters": {"text": "with [brackets]"}}).inputs
    for name, x in arrays.items():
        assert np.array_equal(found[name].tensor, x)  # type: ignore[arg-type]

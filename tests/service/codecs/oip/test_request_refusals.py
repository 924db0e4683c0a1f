"""Requests of the protocol: what is refused, in which words."""

from __future__ import annotations

import json
import struct

import pytest

from service.codecs.oip.request import read_request
from service.errors import InvalidTensor, Malformed, PayloadTooLarge, ServiceError
from tests.service.codecs.oip.documents import LIMITS, binary, given, one, read

MALFORMED: dict[str, tuple[object, type[ServiceError], str]] = {
    "not UTF-8": (b'{"inputs": "\xff"}', Malformed, "UTF-8"),
    "truncated": (b'{"inputs": [', Malformed, "JSON"),
    "a byte order mark": (b"\xef\xbb\xbf{}", Malformed, "byte order mark"),
    "half a surrogate": (b'{"inputs": "\\ud800"}', Malformed, "JSON"),
    "NUL behind": (b"{}\0", Malformed, "JSON"),
    "nested deep": (b"[" * 250_000, Malformed, "JSON"),
    "data nested deep": (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 900 + b"]" * 900 + b"}]}",
        InvalidTensor,
        "32 dimensions",
    ),
    "a name twice": (b'{"inputs": [], "inputs": []}', Malformed, "inputs is there twice"),
    "a member of an input twice": (
        b'{"inputs":[{"name":"x","name":"y","shape":[1],"datatype":"FP32","data":[1]}]}',
        Malformed,
        "name is there twice",
    ),
    "a huge integer": (
        b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1%b]}]}' % (b"0" * 5000),
        Malformed,
        "integer beyond 64 bits",
    ),
    "1e400": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1e400]}]}', Malformed, "1.8e308"),
    "NaN": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', Malformed, "JSON"),
    "Infinity": (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[Infinity]}]}', Malformed, "JSON"),
    "no inputs": ({}, Malformed, "inputs: expected an array of objects"),
    "inputs an object": ({"inputs": {}}, Malformed, "inputs: expected an array of objects, got an object"),
    "an input no object": ({"inputs": [1]}, Malformed, "inputs[0]: expected an object"),
    "no name": ({"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}, Malformed, "inputs[0].name"),
    "an empty name": (one(name=""), Malformed, "inputs[0].name: expected a string, got an empty one"),
    "a long id": ({**one(), "id": "x" * 1025}, Malformed, "id: expected a string of at most 1024 characters, got 1025"),
    "name a number": (one(name=3), Malformed, "inputs[0].name"),
    "no datatype": ({"inputs": [{"name": "x", "shape": [1], "data": [1]}]}, InvalidTensor, "inputs[0].datatype"),
    "unknown datatype": (one(datatype="BF16"), InvalidTensor, "inputs[0].datatype: expected one of"),
    "shape a string": (one(shape="2,2"), InvalidTensor, "inputs[0].shape: expected an array of integers, got a string"),
    "a boolean size": (one(shape=[True, 4]), InvalidTensor, "inputs[0].shape[0]: expected an integer"),
    "a size with a fraction": (one(shape=[2.0, 2]), InvalidTensor, "inputs[0].shape[0]: expected an integer"),
    "a negative size": (one(shape=[-1, 4]), InvalidTensor, "negative"),
    "65 sizes": (one(shape=[1] * 65), InvalidTensor, "32 dimensions"),
    "a product beyond memory": (one(shape=[2**32, 2**32]), InvalidTensor, "2^63"),
    "a size of 2^63": (one(shape=[2**63]), InvalidTensor, "2^63"),
    "more than the limit": (one(shape=[10_001]), PayloadTooLarge, "at most 10000"),
    "too few numbers": (one(data=[1, 2, 3]), InvalidTensor, "inputs[0].data: expected 4 numbers by the shape [2, 2]"),
    "too many": (one(data=[1, 2, 3, 4, 5]), InvalidTensor, "expected 4 numbers"),
    "nested otherwise": (one(data=[[1, 2, 3, 4]]), InvalidTensor, "got [1, 4]"),
    "ragged": (one(data=[[1, 2], [3]]), InvalidTensor, "ragged"),
    "mixed depth": (one(data=[1, [2, 3], 4]), InvalidTensor, "inputs[0].data"),
    "mixed depth behind": (one(data=[[1, 2], 3, 4]), InvalidTensor, "inputs[0].data"),
    "data a number": (one(data=1), InvalidTensor, "inputs[0].data: expected an array"),
    "data null": (one(data=None), InvalidTensor, "inputs[0].data: expected an array, got null"),
    "data of null": (one(data=[None] * 4), InvalidTensor, "got null"),
    "uint8 300": (one(datatype="UINT8", data=[1, 2, 300, 4]), InvalidTensor, "0 … 255 for uint8"),
    "uint8 -1": (one(datatype="UINT8", data=[1, 2, -1, 4]), InvalidTensor, "0 … 255 for uint8"),
    "int8 -129": (one(datatype="INT8", data=[1, 2, -129, 4]), InvalidTensor, "-128 … 127 for int8"),
    "a float in integers": (one(datatype="INT32", data=[1, 2, 2.5, 4]), InvalidTensor, "expected an integer"),
    "2.0 in integers": (one(datatype="INT32", data=[1, 2, 2.0, 4]), InvalidTensor, "expected an integer"),
    "true in numbers": (one(data=[1, 2, True, 4]), InvalidTensor, "true or false"),
    "true in integers": (one(datatype="UINT8", data=[1, 2, True, 4]), InvalidTensor, "true or false"),
    "1 in booleans": (one(datatype="BOOL", data=[True, False, 1, True]), InvalidTensor, "expected true or false"),
    "too large for half": (one(datatype="FP16", data=[1, 2, 70000, 4]), InvalidTensor, "65504"),
    "too large for single": (one(data=[1, 2, 1e39, 4]), InvalidTensor, "float32"),
    "a string in numbers": (one(data=[1, 2, "3", 4]), InvalidTensor, "expected a number"),
    "a number in strings": (one(datatype="BYTES", data=["a", "b", 3, "d"]), InvalidTensor, "expected a string"),
    "too few strings": (one(datatype="BYTES", data=["a"]), InvalidTensor, "expected 4 elements"),
    "ragged strings": (one(datatype="BYTES", data=[["a", "b"], ["c"]]), InvalidTensor, "expected 2 elements"),
    "too many strings": (one(datatype="BYTES", shape=[101]), PayloadTooLarge, "at most 100"),
    "an input twice": ({"inputs": [given(), given()]}, Malformed, "'x' is there twice"),
    "100 000 inputs": ({"inputs": [{}] * 100_000}, Malformed, "at most 64"),
    "100 000 outputs": ({**one(), "outputs": [{}] * 100_000}, Malformed, "at most 64"),
    "outputs an object": ({**one(), "outputs": {"name": "a"}}, Malformed, "outputs: expected an array"),
    "an output twice": ({**one(), "outputs": [{"name": "a"}, {"name": "a"}]}, Malformed, "'a' is there twice"),
    "an output without a name": ({**one(), "outputs": [{}]}, Malformed, "outputs[0].name"),
    "id a number": ({**one(), "id": 7}, Malformed, "id: expected a string of at most 1024 characters, got an integer"),
    "parameters an array": ({**one(), "parameters": []}, Malformed, "parameters: expected an object, got an array"),
    "a parameter that is an array": ({**one(), "parameters": {"p": [1]}}, Malformed, "got an array"),
    "a parameter that is null": ({**one(), "parameters": {"p": None}}, Malformed, "got null"),
    "a reserved parameter": ({**one(), "parameters": {"triton_x": 1}}, Malformed, "reserved"),
    "binary_data_output 1": ({**one(), "parameters": {"binary_data_output": 1}}, Malformed, "expected true or false"),
    "shared memory in": (one(parameters={"shared_memory_region": "a"}), Malformed, "not supported"),
    "neither": ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, Malformed, "got neither"),
    "both": (one(parameters={"binary_data_size": 16}), Malformed, "got both"),
    "classification 0": (
        {**one(), "outputs": [{"name": "a", "parameters": {"classification": 0}}]},
        Malformed,
        "integer >= 1, got a smaller one",
    ),
    "classification -1": (
        {**one(), "outputs": [{"name": "a", "parameters": {"classification": -1}}]},
        Malformed,
        ">= 1",
    ),
    "classification a string": (
        {**one(), "outputs": [{"name": "a", "parameters": {"classification": "3"}}]},
        Malformed,
        "got a string",
    ),
    "classification true": (
        {**one(), "outputs": [{"name": "a", "parameters": {"classification": True}}]},
        Malformed,
        "got true or false",
    ),
    "bytes without their header": (binary(16), InvalidTensor, "Inference-Header-Content-Length"),
}


@pytest.mark.parametrize(("document", "kind", "says"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_refused(document: object, kind: type[ServiceError], says: str) -> None:
    with pytest.raises(kind) as refused:
        read(document)
    assert type(refused.value) is kind
    assert says in refused.value.message


TAILS: dict[str, tuple[object, bytes, type[ServiceError], str]] = {
    "too short": (
        binary(16),
        b"x" * 15,
        InvalidTensor,
        "expected 16 bytes behind the JSON by its binary_data_size, got 15",
    ),
    "too long": (binary(16), b"x" * 17, Malformed, "expected 16 bytes behind the JSON"),
    "nothing said of it": (one(), b"x", Malformed, "expected 0 bytes behind the JSON"),
    "negative": (binary(-16), b"x" * 16, Malformed, "binary_data_size: expected an integer >= 0, got a smaller one"),
    "a float": (binary(16.0), b"x" * 16, Malformed, "got a number with a fraction"),
    "a string": (binary("16"), b"x" * 16, Malformed, "got a string"),
    "true": (binary(True), b"x" * 16, Malformed, "got true or false"),
    "not that of the shape": (binary(12), b"x" * 12, InvalidTensor, "expected 16 by shape and datatype, got 12"),
    "larger than the shape": (binary(20), b"x" * 20, InvalidTensor, "expected 16 by shape and datatype, got 20"),
    "a length beyond the end": (
        binary(12, shape=[1], datatype="BYTES"),
        struct.pack("<I", 9) + b"x" * 8,
        InvalidTensor,
        "expected 9 bytes by the length before them, 8 are left",
    ),
    "a length of 2^32 - 1": (
        binary(12, shape=[1], datatype="BYTES"),
        b"\xff" * 12,
        InvalidTensor,
        "expected 4294967295 bytes",
    ),
    "too few elements": (
        binary(5, shape=[2], datatype="BYTES"),
        struct.pack("<I", 1) + b"x",
        InvalidTensor,
        "expected 2 elements by its shape",
    ),
    "an element too many": (
        binary(10, shape=[1], datatype="BYTES"),
        (struct.pack("<I", 1) + b"x") * 2,
        InvalidTensor,
        "5 bytes follow the last one",
    ),
}


@pytest.mark.parametrize(("document", "tail", "kind", "says"), TAILS.values(), ids=TAILS)
def test_tails_that_are_refused(document: object, tail: bytes, kind: type[ServiceError], says: str) -> None:
    with pytest.raises(kind) as refused:
        read(document, tail)
    assert says in refused.value.message


@pytest.mark.parametrize("length", [0, -1, 5, 10**9])
def test_json_that_ends_elsewhere(length: int) -> None:
    text = json.dumps(binary(16)).encode()
    with pytest.raises(Malformed):
        read_request(text + b"x" * 16, length, LIMITS)

"""Requests with long lists of numbers: read in pieces to the same arrays as at once, and refused for the same reasons."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import simdjson

from service.codecs.oip.declared import Limits
from service.codecs.oip.request import Request, read_request
from service.codecs.tensors import document, long_lists
from service.codecs.tensors.long_lists import LONG, cut, pieces
from service.errors import InvalidTensor, Malformed, ServiceError

LIMITS = Limits(10**7, 64)
TYPES = {"FP32": "float32", "FP64": "float64", "INT64": "int64", "UINT8": "uint8", "BOOL": "bool"}


def request(data: bytes, count: int, datatype: str = "FP32", more: bytes = b"") -> bytes:
    return b'{"inputs":[{"name":"x","datatype":"%b","shape":[%d],"data":%b}]%b}' % (
        datatype.encode(),
        count,
        data,
        more,
    )


def read(body: bytes) -> Request:
    return read_request(body, None, LIMITS)


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that were parsed by each call."""
    found: list[int] = []

    class Watched:
        def parse(self, body: bytes) -> Any:
            found.append(len(body))
            return simdjson.Parser().parse(body)

    monkeypatch.setattr(document, "Parser", Watched)
    monkeypatch.setattr(long_lists, "Parser", Watched)
    return found


@pytest.mark.parametrize("datatype", TYPES)
@pytest.mark.parametrize("gap", [b",", b" ,\n "], ids=["close", "wide"])
def test_pieces_are_the_whole(datatype: str, gap: bytes, largest: list[int], rng: np.random.Generator) -> None:
    numbers = (rng.standard_normal(400_000) * 5).astype(TYPES[datatype])
    if numbers.dtype == np.uint8:
        numbers = rng.integers(256, size=1_000_000, dtype=np.uint8)
    data = b"[%b]" % gap.join(json.dumps(number).encode() for number in numbers.tolist())
    got = read(request(data, numbers.size, datatype)).inputs["x"].tensor
    assert got is not None
    assert got.dtype == numbers.dtype
    np.testing.assert_array_equal(got, numbers)
    if datatype != "INT64" or gap != b",":  # whose text is shorter than LONG
        assert len(largest) > 3
        assert max(largest) < 2**19, "one call held the lock for too long"


def test_shapes_several_inputs_and_what_stands_around(rng: np.random.Generator) -> None:
    a, b, small = rng.random((2, 300, 500)), rng.random((70_000, 2)), rng.random((3, 4))
    inputs = [
        {"name": name, "datatype": "FP64", "shape": x.shape, "data": x.ravel().tolist()}
        for name, x in (('a"data"', a), ("small", small), ("b", b))
    ]
    inputs[1]["data"] = small.tolist()
    asked = {"id": '"data":[1,2]', "inputs": inputs, "parameters": {"data": 3, "p": '\\"data":['}}
    for indent in (None, 1):
        found = read(json.dumps(asked, indent=indent).encode())
        assert found.id == asked["id"]
        assert found.parameters == asked["parameters"]
        for name, x in (('a"data"', a), ("small", small), ("b", b)):
            got = found.inputs[name].tensor
            assert got is not None
            np.testing.assert_array_equal(got, x)


MANY = b"1," * 700_000

WRONG: dict[str, tuple[bytes, type[ServiceError], str]] = {
    "two commas": (request(b"[%b,%b1]" % (MANY, MANY), 1_400_001), Malformed, "JSON"),
    "a comma at the end": (request(b"[%b]" % MANY, 700_000), Malformed, "JSON"),
    "a comma at the beginning": (request(b"[,%b1]" % MANY, 700_001), Malformed, "JSON"),
    "a word": (request(b"[%bNaN]" % MANY, 700_001), Malformed, "JSON"),
    "a null": (request(b"[%bnull]" % MANY, 700_001), InvalidTensor, r"inputs\[0\].data\[655360:\]\[44640\]: .*null"),
    "too many": (request(b"[%b1]" % MANY, 5), InvalidTensor, r"expected 5 numbers by the shape \[5\], got more"),
    "too few": (request(b"[%b1]" % MANY, 800_000), InvalidTensor, "expected 800000 numbers .* got 700001"),
    "a string": (request(b'[%b"x"]' % MANY, 700_001), InvalidTensor, r"inputs\[0\].data\[700000\]"),
    "numbers for strings": (request(b"[%b1]" % MANY, 60, "BYTES"), InvalidTensor, r"data\[0\]: expected a string"),
    "numbers for booleans": (request(b"[%b1]" % MANY, 700_001, "BOOL"), InvalidTensor, "expected true or false"),
    "no end": (request(b"[%b1" % MANY, 700_001)[:-3], Malformed, "JSON"),
    "rubbish behind": (request(b"[%b1]" % MANY, 700_001) + b"x", Malformed, "JSON"),
    "data twice": (request(b'[%b1],"data":[%b1]' % (MANY, MANY), 700_001), Malformed, "data is there twice"),
    "300 for a byte": (
        request(b"[%b300]" % MANY, 700_001, "UINT8"),
        InvalidTensor,
        r"data\[655360:\]\[44640\]: expected 0 … 255",
    ),
    "no JSON in a member that nobody reads": (
        request(b"[1]", 1, more=b',"x":{"data":[%b,1]}' % MANY),
        Malformed,
        "JSON",
    ),
    "in a parameter": (
        request(b"[1]", 1, more=b',"parameters":{"data":[%b1]}' % MANY),
        Malformed,
        "parameters: expected a string, a number or a boolean",
    ),
}


@pytest.mark.parametrize(("body", "kind", "says"), WRONG.values(), ids=WRONG)
def test_what_is_refused(body: bytes, kind: type[ServiceError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        read(body)
    assert len(caught.value.message) < 300


def test_members_that_nobody_reads_may_be_there() -> None:
    found = read(request(b"[1]", 1, more=b',"x":{"data":[%b1]}' % MANY))
    assert list(found.inputs) == ["x"]


def test_white_space_is_no_number() -> None:
    tensor = read(request(b"[%b]" % (b" " * 2 * LONG), 0)).inputs["x"].tensor
    assert tensor is not None
    assert tensor.shape == (0,)
    for text in (b"[%b,1]", b"[1,%b]", b"[1,%b,1]"):
        with pytest.raises(Malformed, match="JSON"):
            read(request(text % (b" " * 2 * LONG), 1))
    tensor = read(request(b"[1,%b2]" % (b"\n" * 2 * LONG), 2)).inputs["x"].tensor
    assert tensor is not None
    assert tensor.tolist() == [1, 2]


def test_what_is_cut_out_cannot_be_guessed_and_what_looks_like_it_is_left() -> None:
    long = MANY + b"1"
    body = b'{"a":{"data":[%b]},"b":["%b0"],"data":["0"]}' % (long, b"0" * 32)
    first, second = cut(body, b"data"), cut(body, b"data")
    assert first.text != second.text
    assert [bytes(numbers) for numbers in first.lists.values()] == [long]
    for text in (
        b'{"x\\"data":[%b]}' % long,
        b'{"data":[[%b]]}' % long,
        b'{"data":["%b"]}' % long,
        b'{"data":[%b' % long,
    ):
        assert cut(text, b"data") == (text, {})


def test_many_members_are_not_all_looked_through() -> None:
    """Each could be looked through to the end of the text, which is far."""
    body = b'{"data":[' * 1_000_000 + b"]"
    assert cut(body, b"data") == (body, {})


def test_pieces_are_all_of_it() -> None:
    for text in (MANY + b"1", b"1", b"", b"1," * 2**17 + b"2", b"1," * (2**17 - 1) + b"2", b"12345," * 200_000 + b"7"):
        found = [number for piece in pieces(memoryview(text)) for number in piece]
        assert found == json.loads(b"[%b]" % text)

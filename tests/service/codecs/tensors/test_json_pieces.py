"""Large arrays as JSON: the text is that of one call, no call of orjson's writes much, no piece is large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import orjson
import pytest

from service.codecs.oip.request import Request
from service.codecs.oip.response import Output, write_response
from service.codecs.tensors import json_text
from service.codecs.tensors.json_text import array_pieces, json_pieces, tensor_member, write_array, write_json

SLICE = 2**16


class _Orjson:
    """Orjson, which remembers how many numbers were the most that it wrote in one call."""

    OPT_SERIALIZE_NUMPY = orjson.OPT_SERIALIZE_NUMPY
    Fragment = orjson.Fragment

    def __init__(self) -> None:
        self.most = 0

    def dumps(self, value: object, option: int = 0) -> bytes:
        if isinstance(value, np.ndarray):
            self.most = max(self.most, value.size)
        return orjson.dumps(value, option=option)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Orjson]:
    made = _Orjson()
    monkeypatch.setattr(json_text, "orjson", made)
    yield made
    assert 0 < made.most <= SLICE, "one call held the lock for too many numbers"


def whole(array: np.ndarray) -> bytes:
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


SHAPES = [
    (SLICE + 1,),
    (3 * SLICE,),
    (1, 2 * SLICE),
    (2 * SLICE, 1),
    (2, 1, SLICE + 7),
    (300, 500),
    (5, 7, 11, 13, 17),
    (3, SLICE, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_text_of_slices_is_that_of_the_whole(
    watched: _Orjson, shape: tuple[int, ...], dtype: str, rng: np.random.Generator
) -> None:
    array = (rng.standard_normal(shape) * 50).astype(dtype)
    assert write_array(array) == whole(array)
    assert b"".join(array_pieces(array.T)) == whole(array.T)
    assert write_json({"a": 1, "t": array}) == b'{"a":1,"t":%b}' % whole(array)


def test_non_finite_numbers_and_float16_in_slices(watched: _Orjson, rng: np.random.Generator) -> None:
    """As many small arrays say it, of which each is written at once."""
    for dtype in ("float16", "float32", "float64"):
        array = rng.standard_normal((100, 2000)).astype(dtype)
        array[rng.random(array.shape) < 0.1] = math.nan
        array[3], array[-1, -1] = math.inf, -math.inf
        assert write_array(array) == b"[%b]" % b",".join([write_array(row) for row in array])


@pytest.mark.parametrize("form", ["nested", "flat", "base64"])
def test_documents_with_large_arrays(
    watched: _Orjson, form: Literal["nested", "flat", "base64"], rng: np.random.Generator
) -> None:
    arrays = [rng.standard_normal((2, 2)), rng.standard_normal((SLICE // 100 * 17, 101)), rng.standard_normal(5000)]

    def documents(large: bool) -> dict[str, Any]:
        rows = [
            {"op": 'm"x', "n": None, "tensor": tensor_member(array, form), "list": [array, True], "pair": (0.5, "é")}
            for array in arrays[:: 1 if large else 2]
        ]
        return {"results": rows, "empty": {}, "none": []}

    pieces = json_pieces(documents(True))
    found = orjson.loads(b"".join(pieces))
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 4 * 2**20
    assert b"".join(pieces) == write_json(documents(True))
    small = orjson.loads(orjson.dumps(documents(False), default=_plain, option=orjson.OPT_SERIALIZE_NUMPY))
    assert found["results"][::2] == small["results"]
    assert {name: found[name] for name in ("empty", "none")} == {"empty": {}, "none": []}
    assert found["results"][1]["list"][0] == arrays[1].tolist()


def _plain(value: object) -> object:
    raise AssertionError(f"{type(value)} is no JSON")


def test_base64_of_slices_is_that_of_the_whole(rng: np.random.Generator) -> None:
    for size in (3 * 2**18 + 1, 3 * 2**19, 2**20 + 2):
        array = rng.integers(256, size=size, dtype=np.uint8)
        pieces = json_pieces({"t": tensor_member(array, "base64")})
        (whole_text,) = json_pieces({"t": json_text.encode_base64(array.data).decode()})
        assert orjson.loads(b"".join(pieces))["t"]["base64"] == orjson.loads(whole_text)["t"]
        assert len(pieces) > 1


def test_the_protocols_numbers_are_written_in_slices(watched: _Orjson, rng: np.random.Generator) -> None:
    large, small = rng.standard_normal((300, 1000)).astype(np.float32), np.arange(3)
    outputs = [Output("large", large, False), Output("small", small, False)]
    response = write_response("m", "1", Request("me", {}, {}, None, False), outputs)
    assert response.header_length is None
    assert len(response.buffers) > 1
    data = whole(large.reshape(-1))
    assert b"".join(response.buffers) == (
        b'{"model_name":"m","model_version":"1","id":"me","outputs":['
        b'{"name":"large","datatype":"FP32","shape":[300,1000],"data":%b},'
        b'{"name":"small","datatype":"INT64","shape":[3],"data":[0,1,2]}]}' % data
    )

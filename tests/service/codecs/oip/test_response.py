"""Responses of the protocol: what is in the JSON, what behind it, and strings of classes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from service.codecs.oip.classification import greatest
from service.codecs.oip.datatypes import DATATYPES
from service.codecs.oip.declared import Wanted
from service.codecs.oip.request import Request
from service.codecs.oip.response import Output, write_response
from service.errors import PayloadTooLarge

ALL_JSON = Request(None, {}, {}, None, False)
ALL_BYTES = ALL_JSON._replace(binary=True)


@pytest.mark.parametrize("name", DATATYPES)
@pytest.mark.parametrize("shape", [(2, 3), (1,), (), (0, 4)])
def test_numbers_go_out_as_they_are(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> None:
    dtype = DATATYPES[name]
    x = (rng.normal(size=shape) * 10).astype(dtype)
    length, buffers = write_response("m", "1", ALL_JSON, [Output("y", x)])
    assert length is None
    document = json.loads(b"".join(buffers))
    assert document["outputs"][0] | {"data": 0} == {"name": "y", "datatype": name, "shape": list(shape), "data": 0}
    assert np.array_equal(np.array(document["outputs"][0]["data"], dtype).reshape(shape), x)
    length, buffers = write_response("m", "1", ALL_BYTES, [Output("y", x)])
    body = b"".join(buffers)
    said = json.loads(body[:length])["outputs"][0]
    assert said["parameters"] == {"binary_data_size": x.nbytes}
    assert "data" not in said
    assert (length is None) == (x.nbytes == 0)
    if length is not None:
        assert body[length:] == x.astype(dtype.newbyteorder("<")).tobytes()


def test_outputs_are_in_the_order_asked_for_each_in_its_form(rng: np.random.Generator) -> None:
    made = [Output(name, rng.normal(size=(2, 3)).astype(np.float32), True, ("a", "b")) for name in ("p", "q", "r")]
    wanted = (Wanted("r", True, 0), Wanted("p", False, 0), Wanted("q", True, 2))
    length, buffers = write_response("m", "7", ALL_JSON._replace(id="i", outputs=wanted), made)
    body = b"".join(buffers)
    document = json.loads(body[:length])
    assert (document["id"], document["model_name"], document["model_version"]) == ("i", "m", "7")
    assert [output["name"] for output in document["outputs"]] == ["r", "p", "q"]
    assert body[length:][:24] == made[2].tensor.tobytes()
    strings, rest = [], body[length:][24:]
    while rest:
        (size,) = struct.unpack("<I", rest[:4])
        strings.append(rest[4 : 4 + size].decode())
        rest = rest[4 + size :]
    assert document["outputs"][2]["datatype"] == "BYTES"
    assert document["outputs"][2]["shape"] == [2, 2]
    for row, pair in zip(made[1].tensor, (strings[:2], strings[2:]), strict=True):
        for index, text in zip(np.argsort(-row)[:2], pair, strict=True):
            assert text == f"{row[index]:f}:{index}" + (f":{'ab'[index]}" if index < 2 else "")


def test_what_is_not_finite_is_named() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    _, buffers = write_response("m", "1", ALL_JSON, [Output("y", x)])
    assert json.loads(buffers[0])["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity", 1.0]


def test_classes_descend_with_the_first_of_equals_first_and_nan_last() -> None:
    x = np.array([[1, np.nan, 3, 3, -np.inf, np.inf]], np.float32)
    assert greatest(x, 99, ()) == [
        b"inf:5", b"3.000000:2", b"3.000000:3", b"1.000000:0", b"-inf:4", b"nan:1",
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_classes_of_integers_to_their_ends(dtype: str) -> None:
    limits = np.iinfo(dtype)
    x = np.array([[limits.min, limits.max, 5, 5]], dtype)
    assert greatest(x, 3, ("a", "ü")) == [f"{limits.max}:1:ü".encode(), b"5:2", b"5:3"]


def test_classes_of_a_tensor_without_samples_and_of_none(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4))
    request = ALL_JSON._replace(outputs=(Wanted("y", False, 10**12),))
    said = json.loads(write_response("m", "1", request, [Output("y", x, False)]).buffers[0])["outputs"][0]
    assert said["shape"] == [12]
    assert [int(text.split(":")[1]) for text in said["data"]] == np.argsort(-x, axis=None).tolist()
    empty = json.loads(write_response("m", "1", request, [Output("y", x[:0])]).buffers[0])["outputs"][0]
    assert (empty["shape"], empty["data"]) == ([0, 4], [])


def test_a_million_strings_are_enough() -> None:
    with pytest.raises(PayloadTooLarge, match="at most 1000000 strings"):
        greatest(np.zeros((1001, 1000), np.int8), 1000, ())

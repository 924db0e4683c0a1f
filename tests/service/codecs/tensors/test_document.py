from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.tensors import document as module
from service.codecs.tensors.document import MAX_MEMBERS, MAX_VALUES, Document, parse
from service.codecs.tensors.dtypes import DTYPES
from service.errors import InvalidTensor, Malformed, PayloadTooLarge, ServiceError

LIMIT = 100_000


def parsed(body: bytes | bytearray | memoryview) -> Document:
    return parse(body, max_elements=LIMIT)


def test_parameters_are_plain_python_and_tensors_are_left_out() -> None:
    body = b'{"op":"max","kernel":[2,2],"p":3.5,"ceil_mode":true,"nan":null,"x":{"a":[{"b":-1}]},"tensor":[[1]],"query":[2]}'
    members = parsed(body).members({"tensor", "query"})
    assert members == {"op": "max", "kernel": [2, 2], "p": 3.5, "ceil_mode": True, "nan": None, "x": {"a": [{"b": -1}]}}
    assert type(members["kernel"]) is list
    assert parsed(body).names == ("op", "kernel", "p", "ceil_mode", "nan", "x", "tensor", "query")
    assert "tensor" in parsed(body)
    assert "mask" not in parsed(body)


def test_the_textbook_matrix_is_read() -> None:
    got = parsed(b'{"op": "max", "kernel": 2, "tensor": [[1,3,2,4],[5,2,7,1],[3,8,4,2],[6,1,5,9]]}').tensor("tensor")
    assert got.dtype == np.float32
    assert got.tolist() == [[1, 3, 2, 4], [5, 2, 7, 1], [3, 8, 4, 2], [6, 1, 5, 9]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_body(kind: Any) -> None:
    assert parsed(kind(b'{"tensor":[1,2]}')).tensor("tensor").tolist() == [1, 2]


def test_documents_outlive_one_another() -> None:
    first = parsed(b'{"tensor":[1,2]}')
    second = parsed(b'{"tensor":[3,4]}')
    assert first.tensor("tensor").tolist() == [1, 2]
    array = second.tensor("tensor", DTYPES["float64"])
    del first, second
    assert array.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "nothing"),
        (b"  \n", "nothing"),
        (b'{"tensor":[1,2', "truncated"),
        (b'{"tensor":"ab', "truncated within a string"),
        (b'\xef\xbb\xbf{"tensor":1}', "byte order mark"),
        ('{"tensor":1}'.encode("utf-16"), "UTF-8"),
        (b'{"tensor":"\xff"}', "not UTF-8"),
        (b'{"op":"\\ud800"}', "surrogate"),
        (b'{"\\ud800":1}', "surrogate"),
        (b'{"op":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"tensor":[1e400]}', "1.8e308"),
        (b'{"tensor":[-1e400]}', "1.8e308"),
        (b'{"tensor":[1' + b"0" * 5000 + b"]}", "64 bits"),
        (b'{"tensor":[18446744073709551616]}', "64 bits"),
        (b'{"tensor":[-9223372036854775809]}', "64 bits"),
        (b'{"tensor":[NaN]}', "out of place"),
        (b'{"tensor":[01]}', "a number that JSON does not have"),
        (b'{"tensor":[tru]}', "a value that is none"),
        (b'{"tensor":[1,]}', "out of place"),
        (b'{"tensor":[1]} {}', "out of place"),
        (b'{"tensor":[1]}\0', "out of place"),
        (b'{"op":"\0"}', "control character"),
        (b'{"\\u0000":1}', "NUL"),
        (b"[" * 250_000, ""),
        (b'{"tensor":' + b"[" * 250_000 + b"]" * 250_000 + b"}", "levels of nesting"),
        (b'{"a":' * 250_000 + b"1" + b"}" * 250_000, "levels of nesting"),
        (b"[[1]]", "an array"),
        (b'"tensor"', "a string"),
        (b"12", "an integer"),
        (b"1.5", "a number"),
        (b"null", "null"),
        (b"true", "true or false"),
        (b'{"tensor":1,"op":"max","tensor":2}', "tensor is there twice"),
        (b'{"a\\u0062":1,"ab":2}', "ab is there twice"),
        (b'{"' + b"k" * 1000 + b'":1,"' + b"k" * 1000 + b'":1}', "k" * 64 + " is there twice"),
        (b'{"a\\n\\u001b":1,"a\\n\\u001b":2}', "a\\n\\x1b is there twice"),
        (b"{" + b",".join(b'"%d":1' % i for i in range(MAX_MEMBERS + 1)) + b"}", "at most 256 members"),
    ],
)
def test_what_is_no_json_object_is_malformed(body: bytes, says: str) -> None:
    with pytest.raises(Malformed) as caught:
        parsed(body)
    assert says in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (b'{"x":{"a":1,"a":2}}', Malformed, "x.a is there twice"),
        (b'{"x":[0,{"a":{"b":1,"b":2}}]}', Malformed, "x[1].a.b is there twice"),
        (b'{"x":' + b"[" * 100 + b"]" * 100 + b"}", Malformed, "levels of nesting"),
        (b'{"x":[' + b",".join([b"0"] * (MAX_VALUES + 1)) + b"]}", PayloadTooLarge, "at most 10000 values"),
        (b'{"x":[' + b",".join([b"[0,0,0]"] * (MAX_VALUES // 3)) + b"]}", PayloadTooLarge, "at most 10000 values"),
    ],
)
def test_parameters_are_bounded(body: bytes, error: type[ServiceError], says: str) -> None:
    with pytest.raises(error) as caught:
        parsed(body).members()
    assert says in caught.value.message


def test_parts_are_documents_with_their_place_in_messages() -> None:
    parts = parsed(b'{"ops":[{"op":"max"},{"op":"vlad","centres":[[1,2],[3]],"query":[[1.5]]}]}').parts("ops")
    assert [part.members({"centres", "query"}) for part in parts] == [{"op": "max"}, {"op": "vlad"}]
    assert parts[1].tensor("query").tolist() == [[1.5]]
    with pytest.raises(InvalidTensor, match=r"ops\[1\]\.centres.*ragged"):
        parts[1].tensor("centres")
    for body in (b'{"ops":{}}', b'{"ops":[1]}', b"{}", b'{"ops":[{"a":1,"a":2}]}'):
        with pytest.raises(Malformed, match="ops"):
            parsed(body).parts("ops")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_the_three_forms_give_the_same_array(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    array = (rng.standard_normal(shape) * 50).astype(DTYPES[name]) if name[0] != "u" else rng.integers(99, size=shape)
    array = np.asarray(array, DTYPES[name])
    stated = {"shape": list(shape), "dtype": name}
    swapped = array.astype(array.dtype.newbyteorder("<"))
    text = base64.b64encode(swapped.tobytes()).decode()
    body = json.dumps(
        {
            "dtype": name,
            "nested": array.tolist(),
            "flat": {**stated, "data": array.ravel().tolist()},
            "coded": {**stated, "base64": text},
        }
    ).encode()
    found = parsed(body)
    for member, form in (("nested", "nested"), ("flat", "flat"), ("coded", "base64")):
        got = found.tensor(member)
        assert got.dtype == array.dtype
        assert found.form(member) == form
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, array)


def test_dtype_is_the_objects_own_then_the_askers_then_the_documents_then_float32() -> None:
    body = b'{"a":[1],"b":{"shape":[1],"data":[1]},"c":{"shape":[1],"dtype":"int8","data":[1]}%s}'
    plain, named = parsed(body % b""), parsed(body % b',"dtype":"float64"')
    asked = DTYPES["int64"]
    assert [plain.tensor(n).dtype.name for n in "abc"] == ["float32", "float32", "int8"]
    assert [named.tensor(n).dtype.name for n in "abc"] == ["float64", "float64", "int8"]
    assert [named.tensor(n, asked).dtype.name for n in "abc"] == ["int64", "int64", "int8"]


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (b'{"data":[1]}', InvalidTensor, "expected shape"),
        (b'{"shape":[1]}', InvalidTensor, "one of data and base64"),
        (b'{"shape":[1],"data":[1],"base64":"AAAA"}', InvalidTensor, "one of data and base64"),
        (b'{"shape":[1],"data":[1],"order":"C"}', InvalidTensor, "also order"),
        (b'{"shape":[1],"shape":[1],"data":[1]}', Malformed, "tensor.shape is there twice"),
        (b'{"shape":[1],"dtype":"complex64","data":[1]}', InvalidTensor, "float16, float32"),
        (b'{"shape":[1],"dtype":4,"data":[1]}', InvalidTensor, "float16, float32"),
        (b'{"shape":"1","data":[1]}', InvalidTensor, "tensor.shape: expected an array of integers, got a string"),
        (b'{"shape":[true],"data":[1]}', InvalidTensor, "tensor.shape[0]: expected an integer ≥ 0, got true or false"),
        (b'{"shape":[1,2.0],"data":[1,2]}', InvalidTensor, "tensor.shape[1]"),
        (b'{"shape":[-1],"data":[1]}', InvalidTensor, "negative"),
        (b'{"shape":[[1]],"data":[1]}', InvalidTensor, "got an array"),
        (b'{"shape":[%s],"data":[1]}' % b",".join([b"1"] * 65), InvalidTensor, "at most 32 dimensions"),
        (b'{"shape":[4294967296,4294967296],"data":[1]}', InvalidTensor, "2^63"),
        (b'{"shape":[9223372036854775808],"data":[1]}', InvalidTensor, "2^63"),
        (b'{"shape":[9223372036854775807,0],"data":[]}', InvalidTensor, "2^63"),
        (b'{"shape":[100001],"base64":""}', PayloadTooLarge, "at most 100000 elements, got 100001"),
        (b'{"shape":[2,2],"data":[1,2,3]}', InvalidTensor, "expected 4 numbers by its shape, got 3"),
        (b'{"shape":[2],"data":[[1,2]]}', InvalidTensor, "tensor.data[0]: expected a number, got an array"),
        (b'{"shape":[2],"data":[1,[2]]}', InvalidTensor, "tensor.data[1]"),
        (b'{"shape":[2],"data":2}', InvalidTensor, "got an integer"),
        (b'{"shape":[2],"base64":[]}', InvalidTensor, "expected a string, got an array"),
        (b'{"shape":[2],"base64":"AAAA"}', InvalidTensor, "expected 12 characters of base64 for 8 bytes"),
        (b'{"shape":[2],"base64":"AAAAAAAAAA=*"}', InvalidTensor, "standard alphabet"),
        (b'{"shape":[2],"base64":"AAAA_-AAAAA="}', InvalidTensor, "standard alphabet"),
        (b'{"shape":[2],"base64":"AAAAAAAAAAAA"}', InvalidTensor, "expected 8 bytes by shape and dtype, got 9"),
        ('{"shape":[2],"base64":"AAAAAAAAAAÄ="}'.encode(), InvalidTensor, "standard alphabet"),
        (b'"secret"', InvalidTensor, "got a string"),
        (b"null", InvalidTensor, "got null"),
        (b"true", InvalidTensor, "got true or false"),
    ],
)
def test_a_broken_tensor_is_refused_with_its_place(value: bytes, error: type[ServiceError], says: str) -> None:
    with pytest.raises(error) as caught:
        parsed(b'{"tensor":' + value + b"}").tensor("tensor")
    assert says in caught.value.message
    assert "secret" not in caught.value.message


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(InvalidTensor, match="grad_output: expected a tensor, got none"):
        parsed(b"{}").tensor("grad_output")


@pytest.mark.parametrize("text", [b"2.5", b'"NaN"', b"-3", b'"-Infinity"'])
def test_a_number_is_a_tensor_of_rank_0(text: bytes) -> None:
    got = parsed(b'{"tensor":%s}' % text).tensor("tensor")
    assert got.shape == ()
    np.testing.assert_array_equal(got, np.float32(text.strip(b'"').decode()))


def test_the_road_taken_does_not_change_the_array(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets counted over a large body in chunks, over a small one at once, or not at all."""
    array = rng.standard_normal((50, 7, 11)).astype(np.float32)
    body = orjson.dumps({"pad": [1, [2]], "op": "[", "tensor": array}, option=orjson.OPT_SERIALIZE_NUMPY)
    plain = orjson.dumps({"pad": [1, 2], "tensor": array}, option=orjson.OPT_SERIALIZE_NUMPY)
    np.testing.assert_array_equal(parsed(body).tensor("tensor"), array)
    assert parsed(plain)._brackets("tensor") == 1 + 50 + 50 * 7
    monkeypatch.setattr(module, "_CHUNK", 1000)
    assert parsed(plain)._brackets("tensor") == 1 + 50 + 50 * 7
    np.testing.assert_array_equal(parsed(plain).tensor("tensor"), array)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["NaN", "Infinity"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["shape", "dtype", "data", "base64", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def only_service_errors(body: bytes) -> None:
    try:
        found = parsed(body)
    except Malformed:
        return
    for read in (found.members, lambda: found.parts("tensor"), lambda: found.tensor("tensor")):
        try:
            read()
        except ServiceError as error:
            if error.status not in {400, 413, 422} or len(error.message) > 400:
                raise


@settings(max_examples=150, deadline=None)
@given(value=JSON, dtype=st.sampled_from([*DTYPES, "bool", "x"]))
def test_any_json_is_read_or_refused(value: Any, dtype: str) -> None:
    only_service_errors(json.dumps({"tensor": value, "dtype": dtype}).encode())


@settings(max_examples=150, deadline=None)
@given(value=JSON, cut=st.integers(0, 200), junk=st.binary(max_size=6))
def test_damaged_json_is_read_or_refused(value: Any, cut: int, junk: bytes) -> None:
    body = json.dumps({"op": "max", "tensor": value}, ensure_ascii=False).encode()
    only_service_errors(body[:cut] + junk + body[cut + len(junk) :])
    only_service_errors(junk)


def test_infinity_is_accepted_where_a_float_is() -> None:
    got = parsed(b'{"tensor":["Infinity",1,"-Infinity","NaN"]}').tensor("tensor").tolist()
    assert got[:3] == [math.inf, 1, -math.inf]
    assert math.isnan(got[3])

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.tensors.document import Document, parse
from service.codecs.tensors.dtypes import BOOL, DTYPES
from service.errors import InvalidTensor, PayloadTooLarge

LIMIT = 100_000


def documents(tensor: bytes) -> list[Document]:
    """The same body to be read with the brackets counted, and by the walk."""
    body = b'{"kernel":[2,2],"tensor":' + tensor + b"}"
    quick = parse(body, max_elements=LIMIT)
    return [quick, Document(quick._object, body=None, max_elements=LIMIT)]


def read_both(tensor: bytes, dtype: str = "float32") -> np.ndarray:
    quick, walked = (found.tensor("tensor", DTYPES[dtype]) for found in documents(tensor))
    assert quick.dtype == walked.dtype == DTYPES[dtype]
    np.testing.assert_array_equal(quick, walked)
    return quick


def refused_by_both(tensor: bytes, dtype: str = "float32") -> str:
    messages = []
    for found in documents(tensor):
        with pytest.raises(InvalidTensor) as caught:
            found.tensor("tensor", BOOL if dtype == "bool" else DTYPES[dtype])
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    return messages[0]


@pytest.mark.parametrize("name", DTYPES)
def test_any_array_of_any_dtype_comes_back(name: str, rng: np.random.Generator) -> None:
    dtype = DTYPES[name]
    for _ in range(40):
        shape = tuple(rng.integers(0 if rng.random() < 0.2 else 1, 5, rng.integers(1, 6)))
        if dtype.kind == "f":
            bits = (
                rng.integers(0, 2 ** (8 * dtype.itemsize), shape, dtype=np.uint64, endpoint=False)
                if (dtype.itemsize < 8)
                else rng.integers(0, 2**64, shape, dtype=np.uint64)
            )
            array = bits.astype(f"u{dtype.itemsize}").view(dtype)
            array[~np.isfinite(array)] = 0
        else:
            limits = np.iinfo(dtype)
            array = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        shape_in_json = np.array(array.tolist()).shape
        text = orjson.dumps(array.tolist())
        np.testing.assert_array_equal(read_both(text, name), array.reshape(shape_in_json))


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("[]", (0,)),
        ("[[]]", (1, 0)),
        ("[[],[]]", (2, 0)),
        ("[[[]],[[]]]", (2, 1, 0)),
        ("[" * 32 + "5" + "]" * 32, (1,) * 32),
    ],
)
def test_empty_and_deep_lists_have_numpys_shape(tensor: str, shape: tuple[int, ...]) -> None:
    assert read_both(tensor.encode()).shape == shape == np.array(json.loads(tensor)).shape


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ("[[1,2],[3]]", "ragged, expected 2 elements in tensor[1] as in the first, got 1"),
        ("[[1,2],[3],[4,5,6]]", "in tensor[1]"),  # as many numbers as the shape wants
        ("[[1,2],[3,[4]]]", "tensor[1][1]: expected a number"),
        ("[[1,2],[[3],4]]", "tensor[1][0]: expected a number"),
        ("[[1,2],[[3,4]]]", "in tensor[1] as in the first, got 1"),
        ("[1,[2]]", "tensor[1]: expected a number"),
        ("[[1],2]", "tensor[1]: expected an array of 1 elements as the first, got an integer"),
        ("[[],[1]]", "in tensor[1] as in the first, got 1"),
        ("[[[]],[]]", "in tensor[1]"),
        ("[[[1,2],[3,4]],[[1,2],[3,[4]]]]", "tensor[1][1][1]"),
        ("[[[1,2],[3,4]],[[1,2]]]", "in tensor[1]"),
        ("[[[1,2],[3,4]],[[1,2],3]]", "tensor[1][1]: expected an array"),
        ("[[1,2],[3,null]]", 'tensor[1][1]: expected a number, "NaN", "Infinity" or "-Infinity", got null'),
        ("[[1,2],[3,true]]", 'tensor[1][1]: expected a number, "NaN", "Infinity" or "-Infinity", got true or false'),
        ("[[1,2],[3,{}]]", "got an object"),
        ("[{}]", "tensor[0]"),
        ('[[1,2],[3,"secret"]]', "tensor[1][1]"),
        ('["nan"]', "tensor[0]"),
        ("[" * 33 + "5" + "]" * 33, "at most 32 dimensions"),
    ],
)
def test_what_is_no_rectangle_of_numbers_is_refused_with_its_place(tensor: str, says: str) -> None:
    message = refused_by_both(tensor.encode())
    assert says in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("tensor", "dtype", "says"),
    [
        ("[[1],[300]]", "uint8", "tensor[1][0]: expected 0 … 255 for uint8"),
        ("[0,-1]", "uint8", "tensor[1]: expected 0 … 255"),
        ("[-129]", "int8", "tensor[0]: expected -128 … 127"),
        ("[0,128]", "int8", "tensor[1]"),
        ("[65536]", "uint16", "65535"),
        ("[2147483648]", "int32", "2147483647"),
        ("[9223372036854775808]", "int64", "9223372036854775807"),
        ("[-1]", "uint64", "18446744073709551615"),
        ("[1,2.5]", "int32", "tensor[1]: expected an integer for int32, got a number with a fraction or an exponent"),
        ("[2.0]", "uint8", "expected an integer"),
        ('["NaN"]', "int64", "expected an integer for int64, got a string"),
        ("[true]", "uint8", "got true or false"),
        ("[1,65520]", "float16", "tensor[1]: expected a number up to ±65504 for float16, got a larger one"),
        ("[[1],[-1e39]]", "float32", "tensor[1][0]: expected a number up to ±3.40282e+38"),
        ('["NaN",1e39]', "float32", "tensor[1]"),
        ("[0,2]", "bool", "tensor[1]: expected true, false, 0 or 1"),
        ("[true,0.5]", "bool", "tensor[1]: expected true, false, 0 or 1"),
    ],
)
def test_numbers_that_the_dtype_does_not_have_are_refused(tensor: str, dtype: str, says: str) -> None:
    assert says in refused_by_both(tensor.encode(), dtype)


@pytest.mark.parametrize(
    ("tensor", "dtype"),
    [("300", "uint8"), ("-1", "uint64"), ("2.0", "int8"), ("1e39", "float32"), ("65520", "float16"), ('"NaN"', "int8")],
)
def test_a_lone_number_is_checked_like_others(tensor: str, dtype: str) -> None:
    assert "tensor: expected" in refused_by_both(tensor.encode(), dtype)


def test_integers_are_exact_to_their_ends() -> None:
    assert read_both(b"[-9223372036854775808,9223372036854775807]", "int64").tolist() == [-(2**63), 2**63 - 1]
    assert read_both(b"[0,18446744073709551615]", "uint64").tolist() == [0, 2**64 - 1]
    assert read_both(b"[9007199254740993,18446744073709551615]", "float64").tolist() == [2.0**53, 2.0**64]


def test_floats_are_correctly_rounded_and_keep_their_zeros_sign() -> None:
    assert read_both(b"[65519.999,1e-400,5e-324]", "float16").tolist() == [65504, 0, 0]
    assert np.signbit(read_both(b"[-0.0,-1e-400,0.0]", "float64")).tolist() == [True, True, False]


def test_masks_take_true_false_0_and_1() -> None:
    for text in (b"[[true,false],[false,true]]", b"[[1,0],[0,1]]", b"[[1,false],[0,true]]"):
        for found in documents(text):
            got = found.tensor("tensor", BOOL)
            assert got.dtype == np.bool_
            assert got.tolist() == [[True, False], [False, True]]


def test_too_many_elements_are_too_large_whichever_way_they_lie() -> None:
    for shape in ((LIMIT + 1,), (2, LIMIT // 2 + 1), (LIMIT // 2 + 1, 2)):
        body = orjson.dumps({"tensor": np.zeros(shape, np.int8)}, option=orjson.OPT_SERIALIZE_NUMPY)
        with pytest.raises(PayloadTooLarge, match="at most 100000 elements"):
            parse(body, max_elements=LIMIT).tensor("tensor")


def test_lists_longer_than_simdjson_counts_are_read() -> None:
    """Beyond 2^24 − 1 elements a list's length is not kept."""
    count = 2**24 + 5
    found = parse(b'{"tensor":[' + b"7," * (count - 1) + b"9]}", max_elements=count)
    got = found.tensor("tensor", DTYPES["uint8"])
    assert (got.size, got[0], got[-1]) == (count, 7, 9)
    with pytest.raises(PayloadTooLarge):
        parse(b'{"tensor":[' + b"7," * (count - 1) + b"9]}", max_elements=count - 1).tensor("tensor")
    with pytest.raises(PayloadTooLarge):
        found.members()


@pytest.mark.parametrize(
    "other",
    [
        b'{"a":[],"a":1}',  # a name twice counts once, else it would hide the bracket of [4]
        b'{"a":1,"a":[]}',
        b'[{"a":[],"a":1}]',
        b'{"\\u0000":[]}',
        b'{"a\\u0000":[],"a":1}',
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 1000 + b"[]" + b"}" * 1000,
        b"{" + b",".join(b'"%d":[]' % i for i in range(1000)) + b"}",
        b'"[[["',
        b"[1,[2],[[3]]]",
    ],
)
def test_other_members_hide_nothing_and_harm_nothing(other: bytes) -> None:
    found = parse(b'{"x":%s,"tensor":[[1,2],[3,4]],"ragged":[[1,2],[3,[4]]]}' % other, max_elements=LIMIT)
    assert found.tensor("tensor").tolist() == [[1, 2], [3, 4]]
    with pytest.raises(InvalidTensor, match=r"ragged\[1\]\[1\]"):
        found.tensor("ragged")
    alone = parse(b'{"x":%s,"tensor":[[1,2],[3,[4]]]}' % other, max_elements=LIMIT)
    with pytest.raises(InvalidTensor, match=r"tensor\[1\]\[1\]"):
        alone.tensor("tensor")


NESTED = st.recursive(
    st.integers(-3, 300) | st.sampled_from(["NaN", 1.5]), lambda i: st.lists(i, max_size=3), max_leaves=20
)


OTHERS = NESTED | st.dictionaries(st.sampled_from(["shape", "data"]), NESTED) | st.text(alphabet="[]a", max_size=3)


@settings(max_examples=300, deadline=None)
@given(value=NESTED.filter(lambda value: isinstance(value, list)), others=st.lists(OTHERS, max_size=2))
def test_rectangles_are_those_of_numpy_and_nothing_else(value: Any, others: list[Any]) -> None:
    """Oracle: NumPy refuses ragged lists as inhomogeneous."""
    body = json.dumps({**{f"o{i}": other for i, other in enumerate(others)}, "tensor": value}).encode()
    found = parse(body, max_elements=LIMIT)
    try:
        expected = np.array(value, np.float64)  # "NaN" is read as such by NumPy too
    except ValueError:
        with pytest.raises(InvalidTensor):
            found.tensor("tensor", DTYPES["float64"])
        return
    np.testing.assert_array_equal(found.tensor("tensor", DTYPES["float64"]), expected)

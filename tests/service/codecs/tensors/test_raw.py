from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.tensors.dtypes import DTYPES, check_shape
from service.codecs.tensors.raw import read_raw, read_shape, write_raw, write_shape
from service.errors import InvalidTensor, PayloadTooLarge, ServiceError

LIMIT = 100_000


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 0, 3), (2, 3, 4), (1,) * 32])
def test_raw_bytes_go_in_and_out(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    array = rng.integers(0, 100, shape).astype(name)
    for layout in (array, array.T, array.astype(array.dtype.newbyteorder(">"))):
        body = bytes(write_raw(layout))
        assert body == layout.astype(layout.dtype.newbyteorder("<")).tobytes()
        got = read_raw(body, shape=write_shape(layout.shape), dtype=name, max_elements=LIMIT)
        np.testing.assert_array_equal(got, layout)
        assert got.dtype == array.dtype
        assert got.shape == layout.shape


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_nothing_is_copied(kind: Any, rng: np.random.Generator) -> None:
    array = rng.standard_normal((16, 16)).astype(np.float32)
    assert np.shares_memory(np.frombuffer(write_raw(array), np.uint8), array)
    body = kind(array.tobytes())
    got = read_raw(body, shape="16,16", dtype="float32", max_elements=LIMIT)
    assert np.shares_memory(got, np.frombuffer(body, np.uint8))
    assert not got.flags.writeable


def test_unaligned_bytes_are_copied() -> None:
    body = memoryview(b"x" + np.arange(4.0).tobytes())[1:]
    got = read_raw(body, shape="4", dtype="float64", max_elements=LIMIT)
    assert got.flags.aligned
    assert got.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "dtype", "says"),
    [
        ("2,2", "float32", "expected 16 bytes for (2,2) float32, got 12"),
        ("3", "float16", "expected 6 bytes for (3) float16, got 12"),
        ("", "float32", "expected 4 bytes for () float32, got 12"),
        ("3", "bool", "expected one of float16"),
        ("3", "<f4", "expected one of float16"),
        ("3", "", "expected one of float16"),
        *((text, "float32", "shape") for text in (
            "-3", "+3", "3,", ",3", "3,,1", "3.0", "1e3", "0x3", "٣", "(3,)", "[3]", "3 ,1", " ", "3\n", "9" * 20, "three",
            "1," * 64 + "3", "1," * 32 + "3", "4294967296,4294967296", "9999999999999999999,0",
        )),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(shape: str, dtype: str, says: str) -> None:
    with pytest.raises(InvalidTensor) as caught:
        read_raw(b"\0" * 12, shape=shape, dtype=dtype, max_elements=LIMIT)
    assert says in caught.value.message


@pytest.mark.parametrize("shape", ["100001", "10,10001", "100001,0", "0,100001"])
def test_more_elements_than_the_limit_are_too_large(shape: str) -> None:
    with pytest.raises(PayloadTooLarge, match="at most 100000 elements"):
        read_raw(b"", shape=shape, dtype="float32", max_elements=LIMIT)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.text(max_size=12) | st.from_regex(r"[0-9,]{0,30}"), dtype=st.sampled_from([*DTYPES, "x"]), body=st.binary()
)
def test_anything_else_is_refused_or_read(shape: str, dtype: str, body: bytes) -> None:
    try:
        got = read_raw(body, shape=shape, dtype=dtype, max_elements=LIMIT)
    except ServiceError as error:
        if error.status not in {413, 422}:
            raise
    else:
        assert got.tobytes() == body


@pytest.mark.parametrize("size", [True, 2.0, "2", None, -1, np.int64(2), [2]])
def test_sizes_are_integers_and_nothing_like_them(size: object) -> None:
    with pytest.raises(InvalidTensor, match=r"shape\[1\]: expected an integer ≥ 0"):
        check_shape([1, size], max_elements=LIMIT, itemsize=4)


def test_shapes_are_written_as_they_are_read() -> None:
    for shape in ((), (3,), (8, 64, 56, 56)):
        assert tuple(read_shape(write_shape(shape))) == shape

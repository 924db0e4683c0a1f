from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.tensors.dtypes import DTYPES
from service.codecs.tensors.npy import is_plain, read_npy, write_npy
from service.errors import InvalidTensor, Malformed, PayloadTooLarge, ServiceError, UnsupportedMediaType

LIMIT = 100_000


def saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions 2 and 3 are said to be unreadable by old NumPys
        np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


def with_header(text: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    encoded = text if isinstance(text, bytes) else text.encode("utf-8")
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(encoded)) + encoded + data
    )


def numbers(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2 if name == "bool" else 100, shape).astype(name)


SHAPES = [(), (0,), (5,), (2, 0, 3), (2, 3, 4), (1,) * 32]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("name", [*DTYPES, "bool"])
def test_what_numpy_writes_is_read(name: str, version: tuple[int, int], rng: np.random.Generator) -> None:
    for shape in SHAPES:
        array = numbers(name, shape, rng)
        for stored in (array, array.copy(order="F"), array.astype(array.dtype.newbyteorder(">"))):
            got = read_npy(saved(stored, version), max_elements=LIMIT)
            assert got.dtype == array.dtype
            assert got.dtype.isnative
            assert got.flags.c_contiguous
            assert got.flags.aligned
            np.testing.assert_array_equal(got, array, strict=True)


@pytest.mark.parametrize("name", [*DTYPES, "bool"])
def test_what_is_written_numpy_reads(name: str, rng: np.random.Generator) -> None:
    for shape in SHAPES:
        array = numbers(name, shape, rng)
        for given_array in (array, array.T, array.astype(array.dtype.newbyteorder(">"))):
            body = b"".join(write_npy(given_array))
            got = np.load(io.BytesIO(body), allow_pickle=False)
            np.testing.assert_array_equal(got, given_array)
            assert got.shape == given_array.shape
            if given_array.size:
                assert (len(body) - given_array.nbytes) % 64 == 0


@pytest.mark.parametrize("name", [*DTYPES, "bool", ">f4", ">i8", "fortran", "version 2", "unaligned"])
def test_what_is_plain_is_seen_where_it_lies(name: str, rng: np.random.Generator) -> None:
    array = numbers(name if name in DTYPES or name[0] in ">b" else "float64", (6, 4), rng)
    body = saved(np.asfortranarray(array) if name == "fortran" else array, (2, 0) if name == "version 2" else (1, 0))
    if name == "unaligned":
        body = body.replace(b" \n", b"\n", 1)
        body = body[:8] + struct.pack("<H", 117) + body[10:]
    assert is_plain(body) == (name in DTYPES)
    assert is_plain(memoryview(bytearray(body))) == (name in DTYPES)
    memory = np.frombuffer(body, np.uint8).copy()
    assert (read_npy(memory.data, max_elements=LIMIT) == array).all()
    if is_plain(body):
        assert np.shares_memory(read_npy(memory.data, max_elements=LIMIT), memory)


@pytest.mark.parametrize("body", [b"", b"{", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_other_things_are_not_plain(body: bytes) -> None:
    assert not is_plain(body)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_body_is_not_copied(kind: Any, rng: np.random.Generator) -> None:
    array = rng.standard_normal((64, 64))
    body = kind(saved(array))
    got = read_npy(body, max_elements=LIMIT)
    assert np.shares_memory(got, np.frombuffer(body, np.uint8))
    assert not got.flags.writeable
    assert np.shares_memory(np.frombuffer(write_npy(array)[1], np.uint8), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, np.complex64), np.zeros(2, "U3"), np.zeros(2, "S3"), np.zeros(2, "M8[s]"), np.zeros(2, "V4"),
        np.array([{}], object), np.zeros(2, [("a", "f4")]), np.zeros(2, np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_other_dtypes_are_refused_with_the_list_of_ours(array: np.ndarray) -> None:
    with pytest.raises(InvalidTensor, match=r"float16, float32.*uint64 or, for masks, bool"):
        read_npy(saved(array), max_elements=LIMIT)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "header",
    [
        GOOD,
        '{"shape": (2,), "fortran_order": False, "descr": "<f4"}',
        "{'descr':'<f4','fortran_order':False,'shape':(2L,)}",
        "  {'descr': '<f4', 'fortran_order': True, 'shape': ( 2 , ) ,}   \n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}",
    ],
)
def test_headers_of_other_writers_are_read(header: str) -> None:
    body = with_header(header, np.float32([3, 4]).tobytes())
    assert read_npy(body, max_elements=LIMIT).ravel().tolist() == [3, 4]


@pytest.mark.parametrize(
    ("body", "error", "says"),
    [
        (b"", Malformed, "truncated"),
        (b"\x93NUM", Malformed, "truncated"),
        (b"PK\x03\x04", UnsupportedMediaType, ".npy"),
        (b"\x93NUMPY\x01\x00\xff", Malformed, "truncated"),
        (b"\x93NUMPY\x04\x00" + b"\x00" * 10, UnsupportedMediaType, "version"),
        (b"\x93NUMPY\x01\x07" + b"\x00" * 10, UnsupportedMediaType, "version"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, Malformed, "it claims 4294967295"),
        (b"\x93NUMPY\x02\x00\xff\xff", Malformed, "truncated"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 100) + b"{", Malformed, "expected 100 bytes of it, got 1"),
        (with_header(""), Malformed, "descr"),
        (with_header("{}"), Malformed, "descr"),
        (with_header("{'descr': '<f4', 'fortran_order': False}"), Malformed, "shape"),
        (with_header(GOOD.replace("}", "'x': 1}")), Malformed, "descr"),
        (with_header(GOOD.replace("}", "'shape': (2,)}")), Malformed, "descr"),
        (with_header(GOOD.replace("(2,)", "(2)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(-2,)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(2.0,)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(True,)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(2 3,)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(10**9,)")), Malformed, "shape"),
        (with_header(GOOD.replace("(2,)", "(٣,)")), Malformed, "shape"),
        (with_header(GOOD.replace("False", "0")), Malformed, "fortran_order"),
        (with_header(GOOD.replace("'<f4'", "__import__('os')")), Malformed, "descr"),
        (with_header("(" * 4000), Malformed, "descr"),
        (with_header("{" * 2000 + "}" * 2000), Malformed, "descr"),
        (with_header("{'descr': '''"), Malformed, "descr"),
        (with_header(b"\xff" * 100), Malformed, "descr"),
        (with_header("\0" * 100), Malformed, "descr"),
        (with_header(GOOD.replace("(2,)", "(" + "1," * 33 + ")")), InvalidTensor, "at most 32 dimensions"),
        (with_header(GOOD.replace("(2,)", "(4294967296,4294967296)")), InvalidTensor, "2^63"),
        (with_header(GOOD.replace("(2,)", "(9999999999999999999,0)")), InvalidTensor, "2^63"),
        (with_header(GOOD.replace("(2,)", "(100001,)")), PayloadTooLarge, "at most 100000 elements, got 100001"),
        (with_header(GOOD, b"1234567"), InvalidTensor, "expected 8 bytes of data by its header, got 7"),
        (with_header(GOOD, b"123456789"), InvalidTensor, "expected 8 bytes of data by its header, got 9"),
        (with_header(GOOD.replace("<f4", "|b1"), b"\x01\x02"), InvalidTensor, "bool"),
        (with_header(GOOD.replace("<f4", "|f4"), b"\0" * 8), InvalidTensor, "float16"),
        (with_header(GOOD.replace("<f4", "=f4"), b"\0" * 8), InvalidTensor, "float16"),
    ],
)
def test_broken_files_are_refused(body: bytes, error: type[ServiceError], says: str) -> None:
    with pytest.raises(error) as caught:
        read_npy(body, max_elements=LIMIT)
    assert says in caught.value.message
    assert len(caught.value.message) < 250


def test_unaligned_data_are_copied_to_aligned_ones() -> None:
    for shift in range(8):
        body = with_header(GOOD + " " * shift, np.float32([3, 4]).tobytes())
        got = read_npy(body, max_elements=LIMIT)
        assert got.flags.aligned
        assert got.tolist() == [3, 4]


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 200), junk=st.binary(max_size=8), version=st.sampled_from([1, 2, 3]))
def test_damage_is_refused_or_read(place: int, junk: bytes, version: int) -> None:
    body = saved(np.arange(12, dtype=np.float32).reshape(3, 4), (version, 0))
    body = body[:place] + junk + body[place + len(junk) :]
    for damaged in (body, body[:place], junk):
        try:
            got = read_npy(damaged, max_elements=LIMIT)
        except ServiceError as error:
            if error.status not in {400, 413, 415, 422}:
                raise
        else:
            assert got.nbytes <= len(damaged)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="{}()[]'\",: \\0123456789<>|=fiubLTrueFalsdcptonhy_", max_size=80))
def test_any_header_is_refused_or_read(text: str) -> None:
    with pytest.raises(ServiceError):
        read_npy(with_header(text), max_elements=LIMIT)

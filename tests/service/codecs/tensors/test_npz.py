from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.codecs.tensors.dtypes import DTYPES
from service.codecs.tensors.npz import MAX_ARRAYS, read_npz, write_npz
from service.errors import InvalidTensor, Malformed, PayloadTooLarge, ServiceError, UnsupportedMediaType

LIMIT = 100_000


def saved(*, deflated: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as written:
        for name, content in members:
            written.writestr(name, content)
    return file.getvalue()


SMALL = npy(np.arange(6, dtype=np.float32))


@pytest.mark.parametrize("deflated", [False, True])
def test_what_numpy_writes_is_read(deflated: bool, rng: np.random.Generator) -> None:
    arrays = {f"a_{name}": rng.integers(0, 99, (3, 4)).astype(name) for name in DTYPES}
    arrays |= {
        "mask": np.array([True, False]),
        "empty": np.zeros((2, 0)),
        "größe": np.float32(3),
        "f": np.ones((2, 3)).T,
    }
    got = read_npz(saved(deflated=deflated, **arrays), max_elements=LIMIT)
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array, strict=True)
    assert read_npz(saved(), max_elements=LIMIT) == {}


def test_archives_written_to_a_stream_are_read() -> None:
    """Their local headers have no sizes; those stand behind the data and in the directory."""

    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = Stream()
        with zipfile.ZipFile(file, "w", method) as written:
            written.writestr("a.npy", SMALL)
        assert read_npz(file.getvalue(), max_elements=LIMIT)["a"].tolist() == list(range(6))


def test_any_buffer_will_do() -> None:
    """A body that came in pieces is a view of an array, which cannot be hashed."""
    body = saved(tensor=np.arange(6))
    views: list[bytes | bytearray | memoryview] = [body, bytearray(body), memoryview(body)]
    for view in (*views, np.frombuffer(body, np.uint8).data, np.frombuffer(body, np.uint8).copy().data):
        assert read_npz(view, max_elements=LIMIT)["tensor"].tolist() == list(range(6))


def test_what_is_written_numpy_reads(rng: np.random.Generator) -> None:
    arrays = {
        "tensor": rng.standard_normal((3, 4)).T,
        "größe": np.float16(2),
        "e": np.zeros((0, 2)),
        "m": np.array([True]),
    }
    body = b"".join(write_npz({name: np.asarray(array) for name, array in arrays.items()}))
    with zipfile.ZipFile(io.BytesIO(body)) as opened:
        assert opened.testzip() is None
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
    with np.load(io.BytesIO(body), allow_pickle=False) as loaded:
        assert list(loaded) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(loaded[name], array)
    again = read_npz(body, max_elements=LIMIT)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)


def test_stored_bytes_are_not_copied() -> None:
    array = np.arange(1000, dtype=np.uint8)  # any place is aligned for bytes
    body = saved(a=array)
    assert np.shares_memory(read_npz(body, max_elements=LIMIT)["a"], np.frombuffer(body, np.uint8))
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in write_npz({"a": array}))


def patched(body: bytes, offset: int, layout: str, value: int) -> bytes:
    """Change a field of the first directory entry."""
    start = body.index(b"PK\x01\x02") + offset
    packed = struct.pack(layout, value)
    return body[:start] + packed + body[start + len(packed) :]


def bomb() -> bytes:
    """100 MB of zeros in 100 kB, whose directory says 152 bytes."""
    body = archive([("a.npy", SMALL + bytes(10**7))], zipfile.ZIP_DEFLATED)
    return patched(body, 24, "<L", len(SMALL))


BROKEN: list[tuple[str, Callable[[], bytes], type[ServiceError], str]] = [
    ("nothing", lambda: b"", UnsupportedMediaType, "ZIP"),
    ("npy", lambda: SMALL, UnsupportedMediaType, "ZIP"),
    ("cut", lambda: saved(a=np.ones(9))[:-30], Malformed, "truncated"),
    ("behind", lambda: b"PK\x03\x04" + saved(a=np.ones(9)), Malformed, "broken directory"),
    ("name twice", lambda: saved(a=np.ones(9), b=np.ones(9)).replace(b"b.npy", b"a.npy"), InvalidTensor, "twice"),
    ("no npy name", lambda: archive([("a.txt", SMALL)]), InvalidTensor, "<array>.npy"),
    ("control character", lambda: archive([("a\nb.npy", SMALL)]), InvalidTensor, "<array>.npy"),
    ("long name", lambda: archive([("a" * 300 + ".npy", SMALL)]), InvalidTensor, "256"),
    ("no npy", lambda: archive([("a.npy", b"hello")]), UnsupportedMediaType, "a.npy: expected a .npy file"),
    (
        "bad npy",
        lambda: archive([("a.npy", SMALL[:-1])]),
        InvalidTensor,
        "expected 24 bytes of data by its header, got 23",
    ),
    ("bzip2", lambda: archive([("a.npy", SMALL)], zipfile.ZIP_BZIP2), UnsupportedMediaType, "method 12"),
    ("lzma", lambda: archive([("a.npy", SMALL)], zipfile.ZIP_LZMA), UnsupportedMediaType, "method 14"),
    ("encrypted", lambda: patched(saved(a=np.ones(9)), 8, "<H", 1), InvalidTensor, "encrypted"),
    ("checksum", lambda: patched(saved(a=np.ones(9)), 16, "<L", 1), InvalidTensor, "checksum"),
    ("zip64", lambda: patched(saved(a=np.ones(9)), 24, "<L", 2**32 - 1), UnsupportedMediaType, "ZIP64"),
    ("offset", lambda: patched(saved(a=np.ones(9)), 42, "<L", 2**31), Malformed, "where the directory says"),
    ("name length", lambda: patched(saved(a=np.ones(9)), 28, "<H", 60_000), Malformed, "broken directory"),
    (
        "packed size",
        lambda: patched(saved(a=np.ones(9)), 20, "<L", 10**6),
        Malformed,
        "truncated, expected 1000000 bytes",
    ),
    ("stored size", lambda: patched(saved(a=np.ones(9)), 24, "<L", 10), Malformed, "expected 10 bytes"),
    ("claimed size", lambda: patched(saved(a=np.ones(9)), 24, "<L", 10**9), PayloadTooLarge, "its directory says"),
    ("bomb", bomb, Malformed, "does not end there"),
    ("short", lambda: patched(saved(deflated=True, a=np.ones(9)), 24, "<L", 999), Malformed, "expected 999 bytes"),
    ("junk", lambda: patched(archive([("a.npy", b"\xff" * 99)]), 10, "<H", 8), Malformed, "cannot be inflated"),
    ("elements", lambda: saved(a=np.zeros(LIMIT + 1, np.int8)), PayloadTooLarge, "at most 100000 elements"),
    ("bytes", lambda: saved(**{c: np.zeros(LIMIT) for c in "ab"}), PayloadTooLarge, "in all arrays"),
    (
        "many",
        lambda: archive([(f"{i}.npy", SMALL) for i in range(MAX_ARRAYS + 1)]),
        PayloadTooLarge,
        "at most 64 arrays, got 65",
    ),
]


@pytest.mark.parametrize(("make", "error", "says"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_archives_are_refused(make: Callable[[], bytes], error: type[ServiceError], says: str) -> None:
    with pytest.raises(error) as caught:
        read_npz(make(), max_elements=LIMIT)
    assert says in caught.value.message
    assert len(caught.value.message) < 250


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(min_size=1, max_size=6), data=st.data(), deflated=st.booleans())
def test_damage_is_refused_or_read(junk: bytes, data: st.DataObject, deflated: bool) -> None:
    body = saved(deflated=deflated, a=np.arange(6.0), b=np.ones((2, 2), np.int8))
    place = data.draw(st.integers(0, len(body)))
    for damaged in (body[:place] + junk + body[place + len(junk) :], body[:place], body[:place] + junk + body[place:]):
        try:
            read_npz(damaged, max_elements=LIMIT)
        except ServiceError as error:
            if error.status not in {400, 413, 415, 422}:
                raise

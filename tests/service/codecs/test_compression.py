"""Compressed bodies: whole ones, broken ones, bombs; and what Accept-Encoding asks for."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest

from service.codecs.compression import Encoding, choose_encoding, compress, decompress, encoding_of
from service.errors import Malformed, PayloadTooLarge, UnsupportedEncoding

PACK = {"gzip": gzip.compress, "deflate": zlib.compress}
ENCODINGS = pytest.mark.parametrize("encoding", ["gzip", "deflate"])


@ENCODINGS
@pytest.mark.parametrize("size", [1, 1000, 3 * 2**16, 10**6])
def test_what_others_pack_is_unpacked_and_back(rng: np.random.Generator, encoding: Encoding, size: int) -> None:
    data = rng.integers(0, 4, size, np.uint8).tobytes()
    assert decompress(PACK[encoding](data), encoding, max_bytes=size) == data
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}[encoding]
    assert unpack(compress(data, encoding)) == data


@ENCODINGS
def test_limit_holds_for_what_comes_out(encoding: Encoding) -> None:
    packed = PACK[encoding](bytes(1000))
    assert decompress(packed, encoding, max_bytes=1000) == bytes(1000)
    with pytest.raises(PayloadTooLarge, match="at most 999 bytes once decompressed"):
        decompress(packed, encoding, max_bytes=999)


@ENCODINGS
def test_bomb_takes_no_more_memory_than_the_limit(encoding: Encoding) -> None:
    packed = PACK[encoding](bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(packed, encoding, max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@ENCODINGS
@pytest.mark.parametrize("break_", ["truncate", "flip", "append", "other", "nothing", "empty"])
def test_broken_bodies(rng: np.random.Generator, encoding: Encoding, break_: str) -> None:
    packed = bytearray(PACK[encoding](rng.bytes(3000)))
    if break_ == "truncate":
        packed = packed[: int(rng.integers(1, len(packed) - 1))]
    elif break_ == "flip":
        packed[len(packed) // 2] ^= 0xFF  # of bytes that are stored, so that only the checksum tells
    elif break_ == "append":
        packed += b"more"
    elif break_ == "other":
        packed = bytearray(PACK["deflate" if encoding == "gzip" else "gzip"](b"abc"))
    elif break_ == "nothing":
        packed = bytearray()
    else:
        packed = bytearray(PACK[encoding](b""))
    with pytest.raises(Malformed):
        decompress(bytes(packed), encoding, max_bytes=10**6)


def test_encodings_by_name() -> None:
    assert [encoding_of(name) for name in ("", "identity", "gzip", "GZip", "x-gzip", "deflate")] == [
        None, None, "gzip", "gzip", "gzip", "deflate",
    ]  # fmt: skip
    for name in ("br", "gzip, gzip", "zstd", "gzip;q=1"):
        with pytest.raises(UnsupportedEncoding) as refused:
            encoding_of(name)
        assert refused.value.accepted == ("gzip", "deflate")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0.5, identity;q=0.4", "gzip"),
        ("*", "gzip"),
        ("*;q=0.5, gzip;q=0", "deflate"),
        ("br", None),
        ("identity", None),
        ("x-gzip", "gzip"),
        ("gzip;q=nonsense", None),
    ],
)
def test_choice_by_accept_encoding(accept: str, chosen: str | None) -> None:
    assert choose_encoding(accept) == chosen

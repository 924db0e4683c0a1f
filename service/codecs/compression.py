"""Bodies compressed as a whole: gzip (RFC 1952) and deflate (RFC 9110's, which is zlib, RFC 1950)."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Literal

from service.errors import Malformed, PayloadTooLarge, UnsupportedEncoding

Encoding = Literal["gzip", "deflate"]

ENCODINGS: dict[str, Encoding] = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}

_WINDOW: dict[Encoding, int] = {"gzip": 31, "deflate": 15}

_LEVEL = 1
"""Of 9: tensors of floats shrink little at any, and this one takes a third of the time of the usual 6."""

_MAX_ACCEPT = 1024  # characters of Accept-Encoding that are read

_CHUNK = 2**16


def encoding_of(text: str) -> Encoding | None:
    """Read a Content-Encoding; None where there is none.

    Raises:
        UnsupportedEncoding (415): another one, or several on top of each other.
    """
    name = text.strip().lower()
    if name in {"", "identity"}:
        return None
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise UnsupportedEncoding(
            "Content-Encoding: expected gzip, deflate or identity, got another", accepted=("gzip", "deflate")
        )
    return encoding


def decompress(data: bytes | memoryview, encoding: Encoding, *, max_bytes: int) -> bytes:
    """Decompress a body; stops as soon as it grows beyond the limit.

    Raises:
        Malformed (400): corrupt, truncated, or followed by something else.
        PayloadTooLarge (413): more than `max_bytes` come out.
    """
    inflater = zlib.decompressobj(_WINDOW[encoding])
    view = memoryview(data)
    pieces = []
    left = max_bytes
    rest: bytes | memoryview = b""
    try:
        while not inflater.eof:
            if not rest:
                rest, view = view[:_CHUNK], view[_CHUNK:]
            piece = inflater.decompress(rest, min(left + 1, _CHUNK))
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise PayloadTooLarge(f"expected a body of at most {max_bytes} bytes once decompressed, it is larger")
            rest = inflater.unconsumed_tail
            if not (piece or rest or view or inflater.eof):
                raise Malformed(f"Content-Encoding: expected {encoding} data, it ends too early")
    except zlib.error:
        raise Malformed(f"Content-Encoding: expected {encoding} data, it is corrupt") from None
    if inflater.unused_data or view:
        raise Malformed(f"Content-Encoding: expected {encoding} data, more follows its end")
    if left == max_bytes:
        raise Malformed("expected a body, got none within its Content-Encoding")
    return b"".join(pieces)


def compress(data: bytes, encoding: Encoding) -> bytes:
    """Compress a body."""
    return zlib.compress(data, _LEVEL, _WINDOW[encoding])


@lru_cache(256)
def choose_encoding(accept: str) -> Encoding | None:
    """Choose how an answer is compressed, by Accept-Encoding (RFC 9110, 12.5.3).

    Args:
        accept: the header; "" where there is none.

    Returns:
        What has the highest quality, gzip before deflate before nothing where they are equal; nothing where neither is named.
    """
    qualities: dict[str, float] = {}
    for text in accept[:_MAX_ACCEPT].lower().split(","):
        name, _, parameters = text.strip().partition(";")
        quality = 1.0
        key, _, value = parameters.strip().partition("=")
        if key.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
        qualities.setdefault(name.strip(), quality)
    anything = qualities.get("*", 0.0)
    gzip = qualities.get("gzip", qualities.get("x-gzip", anything))
    deflate = qualities.get("deflate", anything)
    best: Encoding = "gzip" if gzip >= deflate else "deflate"
    quality = max(gzip, deflate)
    return best if quality > 0 and quality >= qualities.get("identity", 0.0) else None

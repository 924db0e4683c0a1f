"""Base64 (RFC 4648, section 4) in JSON, of tensors and of files: read strictly, written without line breaks."""

from __future__ import annotations

import binascii
import re

from service.errors import InvalidTensor

_SLICE = 2**20
"""Characters that are decoded by one call, a multiple of 4: 1 ms, after which other threads run."""


_OTHERS = re.compile(r"[^A-Za-z0-9+/=]")


class NoBase64(Exception):
    """A text is none; its message is what came, such as `other characters`."""


def read_base64(text: str) -> bytes:
    """Decode base64 of any length.

    Args:
        text: the standard alphabet with padding; no line breaks, no URL-safe alphabet.

    Raises:
        NoBase64: it is something else.
    """
    pieces = []
    for start in range(0, len(text), _SLICE):
        piece = text[start : start + _SLICE]
        try:
            data = binascii.a2b_base64(piece, strict_mode=True)
        except ValueError:  # binascii.Error is one; text that is not ASCII raises it itself
            if len(piece) % 4 and not _OTHERS.search(piece):
                raise NoBase64(f"{len(text)} characters, which is no multiple of 4") from None
            raise NoBase64("other characters") from None
        if len(data) < _SLICE // 4 * 3 and start + _SLICE < len(text):
            raise NoBase64("padding before the end")
        pieces.append(data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def decode_base64(text: str, *, expected: int, name: str) -> bytes:
    """Decode base64 to exactly the bytes that a tensor needs.

    Args:
        text: the standard alphabet with padding; no line breaks, no URL-safe alphabet.
        expected: bytes, from shape and dtype; checked against the text's length before anything is decoded.
        name: what the messages call it.

    Raises:
        InvalidTensor (422): another length, or characters that base64 does not have.
    """
    characters = (expected + 2) // 3 * 4
    if len(text) != characters:
        raise InvalidTensor(
            f"{name}: expected {characters} characters of base64 for {expected} bytes by shape and dtype, got {len(text)}"
        )
    try:
        data = read_base64(text)
    except NoBase64 as error:
        raise InvalidTensor(f"{name}: expected base64 in its standard alphabet, padded, got {error}") from None
    if len(data) != expected:
        raise InvalidTensor(f"{name}: expected {expected} bytes by shape and dtype, got {len(data)}")
    return data


def encode_base64(data: memoryview) -> bytes:
    """Encode bytes as base64 text, without line breaks; one copy, the text."""
    return binascii.b2a_base64(data, newline=False)

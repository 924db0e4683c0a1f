"""Base64 (RFC 4648, section 4) of tensors in JSON: read strictly, written without line breaks."""

from __future__ import annotations

import binascii

from service.errors import InvalidTensor


def decode_base64(text: str, *, expected: int, name: str) -> bytes:
    """Decode base64 to exactly the bytes that a tensor needs; one copy, the bytes themselves.

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
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one; text that is not ASCII raises it itself
        raise InvalidTensor(f"{name}: expected base64 in its standard alphabet, padded, got other characters") from None
    if len(data) != expected:
        raise InvalidTensor(f"{name}: expected {expected} bytes by shape and dtype, got {len(data)}")
    return data


def encode_base64(data: memoryview) -> bytes:
    """Encode bytes as base64 text, without line breaks; one copy, the text."""
    return binascii.b2a_base64(data, newline=False)

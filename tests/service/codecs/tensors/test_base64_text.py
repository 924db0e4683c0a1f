"""Base64 of any length: as one call decodes it, in slices; what is none is refused with its reason."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from service.codecs.tensors.base64_text import NoBase64, read_base64

SLICE = 2**20


@pytest.mark.parametrize("size", [0, 1, 2, 3, 786_431, 786_432, 786_433, 2_000_000, 3 * 786_432])
def test_slices_are_the_whole(size: int, rng: np.random.Generator) -> None:
    data = rng.bytes(size)
    assert read_base64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("A", "1 characters, which is no multiple of 4"),
        ("AAAAAA", "6 characters, which is no multiple of 4"),
        ("A" * (SLICE + 2), f"{SLICE + 2} characters, which is no multiple of 4"),
        ("AA=", "3 characters, which is no multiple of 4"),
        ("A" * (SLICE - 4) + "AA==" + "AAAA", "padding before the end"),
        ("A" * (SLICE - 1) + "=" + "AAAA", "padding before the end"),
        ("AA==AAAA", "other characters"),
        ("AAA\n", "other characters"),
        ("AA AA", "other characters"),
        ("_-AA", "other characters"),
        ("Aé", "other characters"),
        ("\ud800AAA", "other characters"),
        ("====", "other characters"),
        ("A" * SLICE + "A-AA", "other characters"),
    ],
)
def test_what_is_none_is_refused(text: str, got: str) -> None:
    with pytest.raises(NoBase64, match=f"^{got}$"):
        read_base64(text)

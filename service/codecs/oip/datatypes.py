"""The protocol's names of element types."""

from __future__ import annotations

import numpy as np

from service.codecs.tensors.dtypes import BOOL, DTYPES, DType
from service.errors import InvalidTensor

BYTES = "BYTES"
"""Strings of bytes, each of its own length; not a dtype."""

_SHORT = {"float": "FP", "int": "INT", "uint": "UINT"}

DATATYPES: dict[str, DType] = {
    "BOOL": BOOL,
    **{_SHORT[name.rstrip("0123456789")] + name.lstrip("abcdefghijklmnopqrstuvwxyz"): DTYPES[name] for name in DTYPES},
}
"""What NumPy has, by the protocol's name. FP16 goes as JSON, too: its numbers are exact in decimal. BF16 is refused."""

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


def check_datatype(name: object, place: str) -> str:
    """Check a datatype's name.

    Raises:
        InvalidTensor (422): none that is read here; the message lists those.
    """
    if not isinstance(name, str) or (name not in DATATYPES and name != BYTES):
        raise InvalidTensor(f"{place}: expected one of {', '.join(DATATYPES)}, {BYTES}, got something else")
    return name


def name_of(dtype: np.dtype) -> str:
    """Give the protocol's name of a dtype."""
    return _NAMES[dtype]

"""What form an answer takes, by the `Accept` header (RFC 9110, 12.5.1) and by how the tensor came."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from service.errors import NotAcceptable

Written = Literal["json", "npy", "npz", "raw", "png"]

MEDIA_TYPES: dict[Written, str] = {
    "json": "application/json",
    "npy": "application/x-npy",
    "npz": "application/x-npz",
    "raw": "application/octet-stream",
    "png": "image/png",
}
_MAX_ACCEPT = 1024  # characters that are read; browsers send 150


@lru_cache(256)
def choose(accept: str, default: Written, among: tuple[Written, ...] = tuple(MEDIA_TYPES)) -> tuple[Written, bool]:
    """Choose the form of an answer.

    Args:
        accept: the header; "" is as */*.
        default: the form in which the tensor came.
        among: the forms that there are.

    Returns:
        The form of the highest quality, the default where it is among them; and whether the caller has named it, so that
        another would not do.

    Raises:
        NotAcceptable (406): none of them is allowed.
    """
    if not accept or accept == "*/*":
        return default, False
    order: list[Written] = [default, *(form for form in among if form != default)]
    ranges = [_quality(text) for text in accept[:_MAX_ACCEPT].split(",")]
    best, best_quality, named = default, 0.0, False
    for form in order:
        media_type = MEDIA_TYPES[form]
        wildcard = media_type.partition("/")[0] + "/*"
        matches = [
            (specificity, quality)
            for name, quality in ranges
            for specificity, pattern in enumerate(("*/*", wildcard, media_type))
            if name == pattern
        ]
        specificity, quality = max(matches, default=(0, 0.0))
        if quality > best_quality:
            best, best_quality, named = form, quality, specificity == 2
    if not best_quality:
        raise NotAcceptable(
            f"Accept: expected one of {', '.join(MEDIA_TYPES[form] for form in among)}, got none of them"
        )
    return best, named


def _quality(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, min(1.0, max(0.0, float(parameter[2:])))
            except ValueError:
                return name, 0.0
    return name, 1.0

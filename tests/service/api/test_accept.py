"""Which form an answer takes, by Accept (RFC 9110, 12.5.1)."""

from __future__ import annotations

import pytest

from service.api.accept import MEDIA_TYPES, Written, choose
from service.errors import NotAcceptable


@pytest.mark.parametrize("accept", ["", "*/*", "text/html, */*;q=0.1"])
@pytest.mark.parametrize("default", MEDIA_TYPES)
def test_whatever_is_welcome_comes_as_it_came(accept: str, default: Written) -> None:
    assert choose(accept, default) == (default, False)


@pytest.mark.parametrize(("form", "media_type"), MEDIA_TYPES.items())
def test_named_type_is_taken(form: Written, media_type: str) -> None:
    assert choose(media_type, "json") == (form, True)
    assert choose(f"text/html, {media_type.upper()} ; q=0.5", "npy") == (form, True)


@pytest.mark.parametrize(
    ("accept", "default", "expected"),
    [
        ("application/json;q=0.4, image/png;q=0.5", "json", ("png", True)),
        ("application/json;q=0.5, image/png;q=0.5", "png", ("png", True)),
        ("image/*", "json", ("png", False)),
        ("application/*", "png", ("json", False)),
        ("application/*", "npz", ("npz", False)),
        ("application/json;q=0, */*", "json", ("npy", False)),
        ("image/png;q=many, application/json", "png", ("json", True)),
        # What a browser sends:
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
            "json",
            ("json", False),
        ),
    ],
)
def test_quality_and_wildcards_decide(accept: str, default: Written, expected: tuple[Written, bool]) -> None:
    assert choose(accept, default) == expected


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", ",;,", "image/jpeg", "nonsense", "a" * 5000])
def test_nothing_that_is_written_here_is_a_406(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/x-npy"):
        choose(accept, "json")

"""URLs of repositories: told from folders, and what is missing where nothing here reads one."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from service.runtime.remote import Mirror, RemoteError, is_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        *((text, True) for text in ("s3://b/m", "memory://x", "file:///m", "simplecache::s3://b")),
        *((text, False) for text in ("models", "/srv/models", "C:\\models", "", "a:b", "//host/share")),
    ],
)
def test_url_is_told_from_a_folder(text: str, url: bool) -> None:
    assert is_url(text) == url


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed."""
    really = builtins.__import__

    def none(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}")
        return really(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", none)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://key:password@bucket/models", r"s3://bucket/models: .*poolserve\[remote\].*s3fs"),
        ("unheard://bucket", "unheard://bucket: expected a URL that fsspec knows"),
    ],
)
def test_url_that_nothing_here_reads_says_what_is_missing(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("s3fs", monkeypatch)
    with pytest.raises(RemoteError, match=says) as caught:
        Mirror(url)
    assert "password" not in str(caught.value)


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide("fsspec", monkeypatch)
    with pytest.raises(RemoteError, match=r"install poolserve\[remote\]"):
        Mirror("memory://bucket")

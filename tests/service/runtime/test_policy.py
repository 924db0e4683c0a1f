"""Version policies: their text, and what they choose."""

from __future__ import annotations

import pytest

from service.runtime.policy import VersionPolicy, is_version

VERSIONS = ["2", "10", "9", "1"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("latest", ("10",)),
        ("latest:1", ("10",)),
        ("latest:3", ("2", "9", "10")),
        ("latest:99", ("1", "2", "9", "10")),
        ("all", ("1", "2", "9", "10")),
        ("specific:9,1,7", ("1", "9")),
        ("specific: 2 , 2", ("2",)),
        ("specific:7", ()),
    ],
)
def test_policy_chooses_by_number(text: str, chosen: tuple[str, ...]) -> None:
    policy = VersionPolicy.parse(text)
    assert policy.choose(VERSIONS) == chosen
    assert VersionPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        *["", "newest", "latest:0", "latest:-1", "latest:1,2", "latest:", "latest:1.5", "Latest", "all:1", " all"],
        *["specific", "specific:", "specific:1,,2", "specific:01", "specific:٣", "specific:9223372036854775808"],
    ],
)
def test_other_texts_are_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected latest, latest:<count>, all or specific"):
        VersionPolicy.parse(text)


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("latest:2", {"latest": {"num_versions": 2}}),
        ("all", {"all": {}}),
        ("specific:3,1", {"specific": {"versions": [1, 3]}}),
    ],
)
def test_document_is_tritons(text: str, document: object) -> None:
    assert VersionPolicy.parse(text).document() == document


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.0", "٣", "²", "", " 1", "1\n", "9223372036854775808", "v1"])
def test_other_names_are_no_versions(name: str) -> None:
    assert not is_version(name)
    assert is_version("9223372036854775807")

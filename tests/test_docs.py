"""The documents against the code: settings, endpoints, errors, versions, links, and names that must not be there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import service
from service.api.documents import concrete
from service.errors import ServiceError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def block(name: str) -> str:
    """What stands between <!-- name --> and <!-- /name --> in the README."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n?<!-- /{name} -->", README, re.DOTALL)
    assert found, f"README has no block {name}"
    return found[1]


def error_table() -> str:
    """The README's error table as it follows from the classes; run this file to print it."""
    lines = ["| status | code | when |", "|---|---|---|"]
    for kind in list(concrete(ServiceError))[1:]:
        lines.append(f"| {kind.status} | `{kind.code}` | {(kind.__doc__ or '').splitlines()[0]} |")
    return "\n".join(lines)


def test_settings_table_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "service", "--print-settings"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert block("settings") == printed


def test_error_table_is_that_of_the_classes() -> None:
    assert block("errors") == error_table()


def test_endpoints_are_those_of_the_openapi_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}
    assert set(re.findall(r"\| `((?:GET|POST) /[^`]*)` \|", README)) == routes
    for path in document["paths"]:
        example = path.replace("{name}", "digits").replace("{version}", "1")
        assert f"http://127.0.0.1:8000{example}" in README, f"no curl example for {path}"


def test_version_is_the_changelogs_and_the_packages() -> None:
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == service.__version__
    assert f'version = "{service.__version__}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links {target}"
    for target in re.findall(r"@(docs/[\w./-]+)", document.read_text()):
        assert (ROOT / target).exists(), f"{document.name} names {target}"


def test_every_dependency_has_its_reason() -> None:
    project = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert project
    for name in re.findall(r'"([A-Za-z0-9_-]+)', project[1]):
        assert re.search(rf"^\|.*\b{name}\b.*\|", README, re.MULTILINE), f"README says nowhere why {name} is there"


def test_nothing_is_pinned_twice_and_everything_is_pinned() -> None:
    pins = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert all(len(pin) == 2 for pin in pins)
    names = [re.sub(r"[-_.]+", "-", name).lower() for name, _ in pins]
    assert len(names) == len(set(names))
    wanted = re.findall(
        r'^    "([A-Za-z0-9_.-]+)(?:\[[\w,]+\])?[>=]=', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in wanted} - {"onnxruntime-gpu"} <= set(names)


def test_no_registry_and_no_path_of_a_machine_is_named() -> None:
    files = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
        .stdout.decode()
        .split("\0")[:-1]
    )
    forbidden = re.compile(
        rb"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian|/root/|/home/\w|find-links|extra-index-url"
    )
    this = Path(__file__).relative_to(ROOT)
    for name in files:
        if Path(name) != this and (ROOT / name).is_file():
            found = forbidden.search((ROOT / name).read_bytes())
            assert not found, f"{name} names {found[0]!r}"


def test_files_are_one_noun_of_at_most_300_lines() -> None:
    for package in ("graphs", "export", "service"):
        for file in (ROOT / package).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 300, file


if __name__ == "__main__":
    print(error_table())

"""docs/operators.md is what the catalogue says."""

from __future__ import annotations

from pathlib import Path

from graphs.operators.catalogue import CATALOGUE
from graphs.operators.document import document

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"


def test_the_page_is_the_catalogues() -> None:
    assert PAGE.read_text() == document(), "run: python -m graphs.operators > docs/operators.md"


def test_every_operator_has_an_entry_with_its_formula() -> None:
    page = document()
    for operator in CATALOGUE.values():
        assert f"### {operator.name}\n" in page
        assert operator.formula in page
        for field in operator.parameters.model_fields:
            assert f"| `{field}` |" in page


def test_every_operator_says_what_it_keeps_and_loses() -> None:
    for operator in CATALOGUE.values():
        assert all((operator.summary, operator.formula, operator.keeps, operator.loses)), operator.name

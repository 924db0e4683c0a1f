"""The catalogue: every operator, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from graphs.operators import extremes, means
from graphs.operators.operator import Operator

FAMILIES = (extremes, means)

CATALOGUE: Mapping[str, Operator] = MappingProxyType(
    {operator.name: operator for family in FAMILIES for operator in family.OPERATORS}
)


class UnknownOperator(ValueError):
    """No operator has this name; the message names the nearest."""


def find(name: str) -> Operator:
    """Look an operator up.

    Raises:
        UnknownOperator: there is none of this name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    nearest = difflib.get_close_matches(name.lower()[:64], CATALOGUE, n=3, cutoff=0.0)
    raise UnknownOperator(
        f"expected an operator of the catalogue, got another name; the nearest are {', '.join(nearest)}"
    )

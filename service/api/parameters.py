"""Parameters of a tensor request: which of them are tensors themselves, and those that are the transport's own."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel

from graphs.operators.catalogue import CATALOGUE
from graphs.operators.request import RegionParameters
from service.errors import InvalidParameter, Malformed


@cache
def array_names() -> frozenset[str]:
    """The names of parameters that are tensors: regions', operators' weights, and what gradient and unpool take."""
    models: list[type[BaseModel]] = [RegionParameters, *(operator.parameters for operator in CATALOGUE.values())]
    found = (name for model in models for name, said in model.model_fields.items() if said.annotation is Any)
    weights = (name for operator in CATALOGUE.values() for name in operator.weights)
    return frozenset({"grad_output", "indices", *found, *weights})


def read_query(query: bytes) -> dict[str, object]:
    """Read the parameters of a query string.

    Raises:
        InvalidParameter (422): one is there twice. Malformed (400): more than 64 of them.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        raise Malformed("expected a query of at most 64 parameters, got more") from None
    parameters: dict[str, object] = {}
    for name, value in pairs:
        add(parameters, name, value)
    return parameters


def add(parameters: dict[str, object], name: str, value: object) -> None:
    """Add one more parameter.

    Raises:
        InvalidParameter (422): it is there already.
    """
    if name in parameters:
        raise InvalidParameter(f"parameter {name[:64]!r} is given twice")
    parameters[name] = value


def op_name(parameters: dict[str, object], where: str = "") -> str:
    """Take the operator's name out.

    Raises:
        InvalidParameter (422): there is none, or it is no text; `where` is put before it.
    """
    op = parameters.pop("op", None)
    if not isinstance(op, str):
        raise InvalidParameter(f"{where}op: expected the name of an operator; /v1/pool/operators lists them")
    return op


def flag(parameters: dict[str, object]) -> bool:
    """Take `compare` out; false if it is not there.

    Raises:
        InvalidParameter (422): it is neither true nor false.
    """
    value = parameters.pop("compare", False)
    if isinstance(value, bool):
        return value
    if value not in {"true", "false"}:
        raise InvalidParameter("compare: expected true or false, got something else")
    return value == "true"

"""What a request gives beside its tensor, sorted: parameters of regions and of the operator, arrays that its action takes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from graphs.operators.operator import Operator, Parameters
from graphs.operators.request import RegionParameters
from service.errors import InvalidParameter

Action = Literal["pool", "gradient", "unpool"]

_OTHERS = {"pool": frozenset({"indices", "grad_output"}), "gradient": frozenset({"indices"})}
"""Arrays that belong to other actions."""

_TAKES = {
    "pool": "indices go to unpool and grad_output to gradient",
    "gradient": "indices go to unpool",
    "unpool": "it takes indices alone",
}


def check_arrays(action: Action, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that another action takes: without effect they would not be what was meant.

    Raises:
        InvalidParameter: 422.
    """
    strange = arrays.keys() - {"indices"} if action == "unpool" else arrays.keys() & _OTHERS[action]
    if strange:
        raise InvalidParameter(f"{min(strange)[:64]}: expected no such array here: {_TAKES[action]}")


def split(
    operator: Operator, given: Mapping[str, object], arrays: Mapping[str, np.ndarray]
) -> tuple[RegionParameters, Parameters]:
    """Sort the parameters into the regions' and the operator's, and check both.

    Raises:
        InvalidParameter: 422; unknown, missing or out of range.
    """
    common, own = RegionParameters.model_fields, operator.parameters.model_fields
    known = [*own, *(name for name in common)]
    named = {**given, **{name: array for name, array in arrays.items() if name not in {"grad_output", "indices"}}}
    for name in named:
        if name not in own and name not in common:
            raise InvalidParameter(
                f"unknown parameter {name[:64]!r} of {operator.name!r}; known are: {', '.join(sorted(known))}"
            )
    try:
        parameters = operator.parameters.model_validate({name: value for name, value in named.items() if name in own})
        request = RegionParameters.model_validate(
            {name: value for name, value in given.items() if name in common and name not in own}
        )
    except ValidationError as error:
        problems: dict[str, str] = {}  # of a parameter that may be several things, the first says enough
        for detail in error.errors(include_url=False, include_input=False):
            problems.setdefault(str(detail["loc"][0]), detail["msg"].removeprefix("Value error, "))
        raise InvalidParameter("; ".join(f"{name}: {problem}" for name, problem in problems.items())) from None
    return request, parameters


def feeds_of(parameters: Parameters, arithmetic: str) -> tuple[dict[str, np.ndarray], Hashable]:
    """What of the parameters is fed to the graph, and what is built into it."""
    feeds: dict[str, np.ndarray] = {}
    structure: list[tuple[str, Any]] = []
    for name, field in type(parameters).model_fields.items():
        value = getattr(parameters, name)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("feed") and value is not None:
            feeds[name] = np.asarray(value, arithmetic)
            structure.append((name, feeds[name].ndim))
        else:
            structure.append((name, repr(value)))
    return feeds, tuple(structure)

"""Runs an operator of the catalogue over given cells in ONNX Runtime, forwards and backwards."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from graphs.operators.catalogue import find
from graphs.operators.compose import Nan, Variant, compose
from graphs.operators.operator import Operator
from service.runtime.session import Session

Action = Literal["pool", "gradient", "indices"]


def _run(
    operator: Operator | str,
    x: np.ndarray,
    feeds: dict[str, np.ndarray | None],
    parameters: dict[str, Any],
    *,
    action: Action,
    nan: Nan,
) -> np.ndarray:
    record = find(operator) if isinstance(operator, str) else operator
    checked = record.parameters.model_validate(parameters)
    kind = x.dtype.name
    arithmetic = kind if x.dtype.kind == "f" else "float64"
    tables = {name: table for name, table in feeds.items() if table is not None}
    gathered = "index" in tables
    variant = Variant(
        kind, arithmetic, arithmetic, gathered, "weight" in tables, "divisor" in tables, nan=nan, action=action
    )
    for name, table in tables.items():
        if name == "index":
            tables[name] = np.asarray(table, np.int64)
        elif name == "grad_output":
            tables[name] = np.asarray(table, arithmetic)
        elif record.joint:  # (r,n) → (1,r,1,n), (r,) → (1,r,1,1)
            tables[name] = np.asarray(table, arithmetic).reshape(1, len(table), 1, -1)
        else:
            tables[name] = np.asarray(table, arithmetic).reshape(1, len(table), -1)
    for name, field in record.parameters.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("feed"):
            tables[name] = np.asarray(getattr(checked, name), arithmetic)
    tables["x"] = x if gathered else np.expand_dims(x, 1)
    session = Session(compose(record, checked, variant), provider="cpu", threads=1)
    return session.run({name: tables[name] for name in session.inputs})[0]


def evaluate(
    operator: Operator | str,
    x: np.ndarray,
    index: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    divisor: np.ndarray | None = None,
    *,
    nan: Nan = "none",
    **parameters: Any,
) -> np.ndarray:
    """Pool x (B,L), or (N,C,L) for joint operators, to (B,r,K), or (N,r,D).

    Args:
        operator: or its name in the catalogue.
        x: of any dtype; computed in its own if it is a float, else in float64.
        index: (r,n); None: the one region is all of x.
        weight: (r,n), 0 where a cell is absent.
        divisor: (r,).
        nan: the rule.
        parameters: the operator's own, checked as in a request.
    """
    feeds = {"index": index, "weight": weight, "divisor": divisor}
    return _run(operator, x, feeds, parameters, action="pool", nan=nan)


def differentiate(
    operator: Operator | str,
    x: np.ndarray,
    grad_output: np.ndarray,
    index: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    *,
    divisor: np.ndarray | None = None,
    nan: Nan = "none",
    **parameters: Any,
) -> np.ndarray:
    """The gradient of `evaluate` by x, of x's shape; grad_output is of its answer's shape."""
    feeds = {"index": index, "weight": weight, "divisor": divisor, "grad_output": grad_output}
    slots = _run(operator, x, feeds, parameters, action="gradient", nan=nan)
    if index is None:
        return slots.reshape(x.shape)
    gradient = np.zeros(x.shape)
    np.add.at(gradient, (..., np.asarray(index).reshape(-1)), slots)
    return gradient

"""The gradient of a prepared request by its input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphs.operators.compose import compose_scatter
from graphs.operators.regions.transpose import readers
from service.errors import InvalidTensor
from service.runtime.pooling.feeds import Table
from service.runtime.pooling.prepared import Prepared

_MOST_SLOTS = 2**18


def differentiate(prepared: Prepared, x: np.ndarray, grad_output: np.ndarray | None, deadline: float) -> np.ndarray:
    """Σ grad_output · ∂y/∂x.

    Args:
        prepared: the request, for x's shape and dtype.
        x: float.
        grad_output: of the answer's shape; None: ones.
        deadline: on the clock of `time.monotonic`.

    Returns:
        Of x's shape and dtype.

    Raises:
        InvalidTensor: 422; integers, another shape than the answer's, or NaN where it is rejected.
        DeadlineExceeded: 504.
    """
    if x.dtype.kind != "f":
        raise InvalidTensor(f"expected a tensor of floats to differentiate by, got {x.dtype}")
    if not x.size:
        return np.zeros_like(x)
    samples = prepared.samples(x)
    arithmetic = np.dtype(prepared.kind.arithmetic)
    plain = replace(
        prepared, request=prepared.request.model_copy(update={"return_indices": False, "return_counts": False})
    )
    # The answer's shape follows from the operator; a run says it, and checks x for NaN on its way.
    answer = plain.run(x, deadline).tensor
    if grad_output is None:
        grad_output = np.ones(answer.shape, arithmetic)
    if grad_output.shape != answer.shape:
        raise InvalidTensor(
            f"grad_output: expected the answer's shape {list(answer.shape)}, got {list(grad_output.shape)}"
        )
    seeds = _seeds(prepared, grad_output.astype(arithmetic), len(samples))
    result = np.zeros(samples.shape, arithmetic)
    for unit in prepared.units:
        for part, table in replace(prepared, native=None).pieces(unit, deadline):
            assert table is not None
            values = samples[part]
            nan, _ = prepared.look(values)
            seed = seeds[part]
            if seed.shape[1] != 1 or not prepared.operator.together:
                seed = seed[:, table.block.rows]
            variant = prepared.variant(table, nan, "gradient")
            slots = prepared.run_table(values, table, variant, grad_output=np.ascontiguousarray(seed))
            _bring_home(prepared, slots, table, result[part])
    back = result.astype(x.dtype, copy=False)
    return _as_input(prepared, back)


def _seeds(prepared: Prepared, grad_output: np.ndarray, samples: int) -> np.ndarray:
    """The gradient of the answer as (B,R,K), or (N,R,D)."""
    layout = prepared.layout
    if layout.across is not None:
        grad_output = np.moveaxis(grad_output, layout.across, -1)
        return grad_output.reshape(samples, -1, 1)
    regions = prepared.units[0].regions.shape
    if layout.channels_last and layout.lead:
        grad_output = np.moveaxis(grad_output, -1, len(layout.lead) - 1)
    count = int(np.prod(regions, dtype=np.int64))
    if prepared.operator.joint:
        outer = grad_output.reshape(samples, -1, 1 if grad_output.ndim == len(layout.lead) else count)
        return outer.swapaxes(1, 2)
    outer_count = int(np.prod(layout.lead[:-1], dtype=np.int64))
    channels = layout.lead[-1] if layout.lead else 1
    width = grad_output.size // max(1, samples * count)
    seeds = grad_output.reshape(outer_count, width, channels, count)
    return np.moveaxis(seeds, 1, -1).reshape(samples, count, width)


def _bring_home(prepared: Prepared, slots: np.ndarray, table: Table, result: np.ndarray) -> None:
    """Add the gradient of each slot to the cell that it was gathered from, in place."""
    if table.block.index is None:
        result += slots.reshape(result.shape)
        return
    flat = slots.reshape(-1, slots.shape[-1])
    home = result.reshape(-1, result.shape[-1])  # a view: result is a slice of rows
    dtype = prepared.kind.arithmetic
    session = prepared.sessions.get(("scatter", dtype), lambda: compose_scatter(dtype, dtype))
    for cells, read in readers(table.block.index, table.block.weight, home.shape[-1], _MOST_SLOTS):
        share = session.run({"slots": flat, "readers": read.astype(np.int64)})[0]
        home[:, cells] += share


def _as_input(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    layout = prepared.layout
    return layout.from_rows(rows, layout.lead, layout.plane)

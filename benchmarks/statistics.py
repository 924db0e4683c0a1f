"""From samples to the numbers of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pace:
    """How fast a number of closed loops went.

    Attributes:
        rate: answers a second, from the first request to the last answer.
        p50_ms: median latency.
        p99_ms: 99th percentile of it.
    """

    rate: float
    p50_ms: float
    p99_ms: float


def percentile_ms(seconds: Sequence[float], percent: float) -> float:
    """A percentile in milliseconds; NaN of nothing."""
    return float(np.percentile(seconds, percent)) * 1e3 if seconds else float("nan")


def pace(spans: Iterable[tuple[float, float]]) -> Pace:
    """Sum up answered requests, given as (sent, seconds taken).

    Loops stop sending at a set time and then wait for what is due, so there was work from the first request to the last answer,
    and the quotient is the rate however the answers are bunched.
    """
    spans = list(spans)
    took = [seconds for _, seconds in spans]
    elapsed_s = max(sent + seconds for sent, seconds in spans) - min(sent for sent, _ in spans)
    return Pace(len(spans) / elapsed_s, percentile_ms(took, 50), percentile_ms(took, 99))


def median(values: Iterable[float]) -> float:
    """The median as a plain float."""
    return float(np.median(list(values)))

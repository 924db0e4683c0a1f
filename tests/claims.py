"""Assertions that many tests share."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_error(response: Any, status: int, code: str, *says: str) -> None:
    """One shape for every error, the right status, and words that help."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "code", "request_id"}
    assert body["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    for words in says:
        assert words in body["error"], body["error"]
    assert "Traceback" not in response.text


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected magnitude."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    difference = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64))
    return float(difference.max() / max(np.abs(expected).max(), np.finfo(np.float64).tiny))

"""What every pooling head is, and the checks on its configuration.

A head's constructor takes the number of channels, then keyword arguments that are plain data: its configuration, which
goes into the model's card. No pooling is computed here (functional.py does).
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


class Head(nn.Module):
    """What every head is: features (N,C,H,W) to an embedding (N, num_features), at any H, W >= 1.

    Attributes:
        pooling: the head's name in the registry.
        formula: what it computes, in one line.
        num_features: width of the embedding, C unless the head concatenates.
        config: the keyword arguments it was built with, defaults included; plain data, ready for JSON.
    """

    pooling: str
    formula: str

    def __init__(self, channels: int, num_features: int | None = None, **config: Any) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be >= 1, got {channels}")
        self.channels = channels
        self.num_features = channels if num_features is None else num_features
        self.config = config

    def extra_repr(self) -> str:
        """Show the configuration, and the learned scalars where there are few of them."""
        shown = [f"{self.channels}"] + [f"{name}={value!r}" for name, value in self.config.items()]
        for name, parameter in self.named_parameters(recurse=False):
            if parameter.numel() == 1:
                shown.append(f"learned {name}={parameter.item():.4g}")
        return ", ".join(shown)


def knobs(head: type[Head]) -> dict[str, Any]:
    """List a head's configuration: the names it takes, with their defaults."""
    parameters = inspect.signature(head.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def require_positive(name: str, value: float) -> float:
    """Give the value as a float; ValueError unless it is finite and > 0."""
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def require_at_least_one(name: str, value: float) -> float:
    """Give the value as a float; ValueError unless it is finite and >= 1."""
    if not 1 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 1, got {value!r}")
    return float(value)


def require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Give the value; ValueError unless it is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value

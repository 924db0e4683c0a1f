"""timm on CPU torch: torchvision's wheel brings compiled operators that load only against CUDA torch, so they are declared here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def timm() -> Iterator[Any]:
    """The module. Where torchvision's operators are missing, its own registrations for them would fail at import."""
    import torch

    declared = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm as module

    yield module  # `declared` has to live as long as the operators
    assert declared is not None

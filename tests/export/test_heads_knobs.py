"""Knobs of pooling heads: plain data that rebuilds the head, shown by its repr, and refused with the known ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from export.heads import HEADS, create_head, knobs
from export.heads.pyramid import grid
from tests.export.configurations import CHANNELS, every_configuration


@every_configuration
def test_configuration_is_plain_data_and_rebuilds_the_head(name: str, config: dict[str, Any]) -> None:
    head = create_head(name, CHANNELS, **config)
    stored = json.loads(json.dumps(head.config))
    again = create_head(name, CHANNELS, **stored)
    assert stored == head.config == again.config
    assert stored.keys() == knobs(HEADS[name]).keys()
    assert stored.items() >= config.items()


@every_configuration
def test_repr_names_every_knob(name: str, config: dict[str, Any]) -> None:
    head = create_head(name, CHANNELS, **config)
    for key, value in head.config.items():
        assert f"{key}={value!r}" in repr(head)


def test_repr_shows_the_learned_value() -> None:
    head = create_head("gem", 4, p=3.0)
    head.get_parameter("p").data.fill_(4.25)
    assert "learned p=4.25" in repr(head)


def test_unknown_head_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown pooling head 'mean'; there are gap, gmp, .*quadrants"):
        create_head("mean", 4)


def test_unknown_knob_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'gem' does not know q; it takes p, per_channel, learned, eps"):
        create_head("gem", 4, q=1)
    with pytest.raises(ValueError, match="'gap' does not know p; it takes no configuration"):
        create_head("gap", 4, p=1)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("gem", {"p": 0}),
        ("gem", {"p": float("nan")}),
        ("gem", {"eps": 0}),
        ("lp", {"p": 0.5}),
        ("lp", {"p": float("inf")}),
        ("lse", {"r": -1}),
        ("softmax", {"alpha": float("inf")}),
        ("mixed", {"alpha": 1.0}),
        ("attention", {"hidden": 0}),
        ("spp", {"levels": []}),
        ("spp", {"levels": [0, 2]}),
        ("spp", {"kind": "sum"}),
        ("quadrants", {"kind": "min"}),
    ],
)
def test_value_out_of_range_is_refused(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(config))} must be .*, got"):
        create_head(name, 4, **config)


def test_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        create_head("gap", 0)


def test_grid_knows_average_and_maximum_only() -> None:
    with pytest.raises(ValueError, match="kind must be 'avg' or 'max', got 'sum'"):
        grid(torch.zeros(1, 1, 2, 2), 2, kind="sum")

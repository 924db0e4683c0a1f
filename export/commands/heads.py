"""`python -m export heads`: the pooling heads, what each computes and what can be set."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.heads import HEADS, create_head, knobs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no flags."""
    parser.epilog = "A setting is given as --set NAME=VALUE to `python -m export export`."


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(
        title="Pooling heads", title_justify="left", caption="C: the backbone's channels", caption_justify="left"
    )
    for column in ("--head", "embedding", "computes, per channel x", "--set (default)"):
        table.add_column(column)
    for name, head in HEADS.items():
        width = create_head(name, 1).num_features
        settings = ", ".join(f"{knob}={json.dumps(default)}" for knob, default in knobs(head).items())
        table.add_row(*(escape(cell) for cell in (name, "C" if width == 1 else f"{width}·C", head.formula, settings)))
    Console().print(table)

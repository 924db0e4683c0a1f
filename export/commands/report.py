"""`python -m export report`: measure the digit models by picture size, and write the tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from export.digits import load_split
from export.report import Row, measure, write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = "Measures the files themselves, in ONNX Runtime, on the 360 digits that no model was trained on."
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="model repository [models]")
    parser.add_argument(
        "--name", action="append", help="a model to measure; may be repeated [all that begin with digits]"
    )
    parser.add_argument(
        "--docs", type=Path, default=Path("docs"), metavar="DIR", help="for accuracy.md and .json [docs]"
    )
    parser.add_argument(
        "--readme",
        type=Path,
        default=Path("README.md"),
        metavar="FILE",
        help="the table also goes between its <!-- accuracy --> marks [README.md]",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, and write."""
    digits = load_split().test
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("measuring", total=None)

        def on_row(row: Row, count: int) -> None:
            progress.update(task, total=count, advance=1, description=f"{row.model} {row.size} {row.accuracy:.3f}")

        rows = measure(arguments.models, names=arguments.name, digits=digits, on_row=on_row)
    write(rows, arguments.docs, arguments.readme, count=len(digits.labels))
    Console().print(f"wrote {arguments.docs / 'accuracy.md'}", markup=False)

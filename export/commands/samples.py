"""`python -m export samples`: the README's sample pictures, and its overview of what a model answers for them."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from export.overview import draw_overview
from export.report import session_classifier
from export.samples import write_samples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--folder", type=Path, default=Path("docs/pictures"), help="where to write [docs/pictures]")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("models/digits/1/model.onnx"),
        metavar="FILE",
        help="whose answers the overview shows [models/digits/1/model.onnx]",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the pictures.

    Raises:
        ValueError, OSError: the model is not there, or does not take grey pictures.
    """
    console = Console(stderr=True)
    with console.status("drawing"):
        written = write_samples(arguments.folder)
        draw_overview(session_classifier(arguments.model), arguments.folder / "overview.png")
    console.print(f"{len(written) + 1} pictures in {arguments.folder}", highlight=False)

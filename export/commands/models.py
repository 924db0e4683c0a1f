"""`python -m export models`: train, export and verify everything that ships in models/."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from export.commands.train import bar
from export.digits import load_split
from export.monitor import TensorBoard
from export.shipped import HEADS, ROUNDS, TUNING, make_models
from export.train import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = (
        f"{', '.join(HEADS)}: the first is trained from nothing ({sum(recipe.steps for recipe in ROUNDS)} steps), "
        f"the others are tuned from it ({sum(recipe.steps for recipe in TUNING)} each), all with fixed seeds. "
        "`python -m export report` then writes the accuracy tables."
    )
    parser.add_argument("--out", type=Path, default=Path("models"), metavar="DIR", help="the model repository [models]")
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="log each training in a folder of its own there"
    )


def run(arguments: argparse.Namespace) -> None:
    """Make the models, one after the other."""
    boards: dict[str, TensorBoard] = {}
    # The digits of `validation` are among those that are trained on here, so their accuracy is called what it is.
    seen = load_split().validation
    with bar() as shown:
        tasks = {}

        def on_model(name: str, steps: int) -> None:
            tasks[name] = shown.add_task(name, total=steps, loss=float("nan"))
            if arguments.tensorboard is not None:
                boards[name] = TensorBoard(arguments.tensorboard / name, seen, tag="seen")

        def on_step(name: str, progress: Progress) -> None:
            shown.update(tasks[name], completed=progress.step, loss=progress.loss)
            if name in boards:
                boards[name](progress)

        files = make_models(arguments.out, on_model=on_model, on_step=on_step)
    for board in boards.values():
        board.close()
    for path in files.values():
        Console().print(f"wrote {path}", markup=False)

"""`python -m export train`: one network on handwritten digits, with the head of your choice."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from export.commands.export import parse_settings
from export.digits import load_split
from export.heads import HEADS
from export.monitor import TensorBoard
from export.shipped import told, write_digits
from export.train import Progress, Recipe, build, train
from export.verify import Comparison

EXAMPLES = """\
examples:
  # two minutes, to see it work
  python -m export train --steps 200 --out build/models/try/1/model.onnx

  # another head, watched in TensorBoard (tensorboard --logdir build/runs)
  python -m export train --head gem --set p=4 --tensorboard build/runs/gem --out build/models/digits-gem/1/model.onnx

1200 digits are trained on; the 237 of `validation` are what TensorBoard's accuracies are of; the accuracy in the
card is of the 360 of `test`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = EXAMPLES
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the model.onnx to write")
    parser.add_argument("--head", default="lse", choices=list(HEADS), help="how the features are pooled [lse]")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the head")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="log losses, accuracies and feature maps there")
    defaults = {field.name: field.default for field in fields(Recipe)}
    for name, kind, line in (
        ("steps", int, "optimiser steps"),
        ("seed", int, "of the weights and of everything that is drawn"),
        ("learning_rate", float, "the highest"),
        ("negatives", float, "share of pictures with dark ink on a bright ground"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=kind, default=defaults[name], help=f"{line} [{defaults[name]}]")


def run(arguments: argparse.Namespace) -> None:
    """Train, export, verify, and say what was reached."""
    recipe = Recipe(
        steps=arguments.steps,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate,
        negatives=arguments.negatives,
    )
    network = build({"pooling": arguments.head, **parse_settings(arguments.set)}, recipe.seed)
    split = load_split()
    board = None if arguments.tensorboard is None else TensorBoard(arguments.tensorboard, split.validation)
    with bar() as shown:
        task = shown.add_task(arguments.head, total=recipe.steps, loss=float("nan"))

        def on_step(progress: Progress) -> None:
            shown.update(task, completed=progress.step, loss=progress.loss)
            if board is not None:
                board(progress)

        network = train(network, split.train, recipe, on_step=on_step)
        check = shown.add_task("against ONNX Runtime", total=None, loss=float("nan"))

        def on_compared(_: Comparison, count: int) -> None:
            shown.update(check, total=count, advance=1)

        facts = {**told([recipe], len(split.train.labels)), "command": "python -m export train"}
        write_digits(network, arguments.out, split.test, facts, seed=recipe.seed, on_compared=on_compared)
    if board is not None:
        board.close()
    Console().print(f"wrote {arguments.out}; its card has its accuracy on the test digits", markup=False)


def bar() -> Bar:
    """Build the progress bar of a training; a task needs the field `loss`."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )

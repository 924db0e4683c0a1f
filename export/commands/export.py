"""`python -m export export`: a backbone and a head, with or without weights, into a verified model.onnx."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from export.backbones import BACKBONES, create_backbone
from export.heads import HEADS
from export.network import Network
from export.verify import TOLERANCE, Comparison, write_verified
from export.weights import StateDict, classes_in, load_weights, read_state_dict
from graphs.card import ModelCard, Preprocessing

EXAMPLES = """\
examples:
  # ResNet-50 with the weights that you have (torchvision's names), ImageNet's preprocessing, generalised-mean pooling
  python -m export export --backbone resnet50 --weights resnet50.pth --labels imagenet.txt \\
      --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --head gem --set p=3 --out models/photos/1/model.onnx

  # random weights, for measuring speed
  python -m export export --backbone resnet18 --head gap --seed 0 --num-classes 1000 --out build/models/resnet18/1/model.onnx

  # four quarters and the whole, each pooled by its maximum
  python -m export export --backbone resnet18 --num-classes 10 --head spp --set 'levels=[1,2]' --set kind=max --out spp.onnx

The file is compared with the network at sizes it was not traced with, and is not written where they disagree.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, with the reason beside each."""
    parser.epilog = EXAMPLES
    network = parser.add_argument_group("network")
    network.add_argument(
        "--backbone",
        required=True,
        choices=list(BACKBONES),
        metavar="NAME",
        help=f"what turns the image into features: {', '.join(BACKBONES)}",
    )
    network.add_argument(
        "--head",
        default="gap",
        choices=list(HEADS),
        metavar="NAME",
        help="how the features are pooled; `python -m export heads` lists them [gap]",
    )
    network.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the head, such as p=3; may be repeated",
    )
    network.add_argument("--num-classes", type=int, metavar="K", help="needed unless --labels or the weights say it")
    network.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict by torch.save; nothing in it is executed. Without it: random weights",
    )
    network.add_argument("--seed", type=int, default=0, help="of the random weights [0]")
    card = parser.add_argument_group("card", "What the file says of itself; the service needs no other configuration.")
    card.add_argument("--labels", type=Path, metavar="FILE", help="class names, one a line, or a JSON list (.json)")
    card.add_argument(
        "--channels", choices=["RGB", "BGR", "L"], default="RGB", help="of the network's input; L is grey [RGB]"
    )
    card.add_argument(
        "--scale",
        type=float,
        default=1 / 255,
        help="the network sees (pixel · scale − mean) / std, pixel 0…255 [1/255]",
    )
    card.add_argument("--mean", type=float, nargs="+", default=[0.0], help="one number, or one a channel [0]")
    card.add_argument("--std", type=float, nargs="+", default=[1.0], help="one number, or one a channel [1]")
    card.add_argument(
        "--activation",
        choices=["softmax", "sigmoid", "none"],
        default="softmax",
        help="from logit to probability [softmax]",
    )
    card.add_argument("--description", default="", help="a sentence for people")
    card.add_argument("--license", default="", help="of the weights, such as Apache-2.0")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as models/NAME/1/model.onnx")


def run(arguments: argparse.Namespace) -> None:
    """Build, load, convert, compare, write.

    Raises:
        ValueError: flags or files that do not fit each other.
        OSError: a file that cannot be read or written.
        VerificationError: the converted model is not the network.
    """
    console = Console(stderr=True)
    labels = read_labels(arguments.labels) if arguments.labels else ()
    state = read_state_dict(arguments.weights) if arguments.weights else None
    preprocessing = Preprocessing(
        channels=arguments.channels, scale=arguments.scale, mean=tuple(arguments.mean), std=tuple(arguments.std)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        backbone = create_backbone(arguments.backbone, preprocessing.channel_count)
        head = {**parse_settings(arguments.set), "pooling": arguments.head}
        network = Network(backbone, head, number_of_classes(arguments.num_classes, labels, state))
    origin: dict[str, Any] = {"weights": "random", "seed": arguments.seed}
    if state is not None:
        left_out = load_weights(network, state)
        digest = hashlib.sha256(arguments.weights.read_bytes()).hexdigest()
        origin = {"weights": arguments.weights.name, "sha256": digest}
        if left_out or classes_in(state) is None:
            why = f"the file's ({', '.join(left_out)}) does not fit" if left_out else "the file has none"
            console.print(f"[yellow]The classifier is random: {why}. The embedding is as it should be.[/]")
            origin |= {"classifier": "random", "seed": arguments.seed}
    card = ModelCard(
        description=arguments.description,
        labels=labels,
        preprocessing=preprocessing,
        activation=arguments.activation,
        backbone=arguments.backbone,
        license=arguments.license,
        training=origin,
    )
    seed = secrets.randbits(32)
    compared = write_with_progress(console, network, card, arguments.out, seed)
    worst = max(compared, key=lambda comparison: comparison.error)
    _, c, h, w = compared[0].shape
    console.print(
        f"[green]{escape(str(arguments.out))}[/]: {arguments.out.stat().st_size / 1e6:.1f} MB, images from {w}×{h} "
        f"({c} channel{'s' * (c > 1)}), embedding {network.num_features}, {network.num_classes} classes.\n"
        f"Compared with torch in {len(compared)} batches (seed {seed}): largest relative error {worst.error:.1e} "
        f"at {worst.shape}, allowed {TOLERANCE:.0e}.",
        highlight=False,
        soft_wrap=True,
    )


def write_with_progress(console: Console, network: Network, card: ModelCard, path: Path, seed: int) -> list[Comparison]:
    """Call `write_verified` with a progress bar over the batches that it compares."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("converting", total=None)

        def show(comparison: Comparison, batches: int) -> None:
            n, _, h, w = comparison.shape
            progress.update(task, description=f"comparing {n} of {w}×{h}", total=batches, advance=1)

        return write_verified(network, card, path, seed=seed, on_compared=show)


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names: a JSON list of strings (.json), else one a line; empty lines at the end do not count.

    Raises:
        ValueError: something else, or no label.
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        labels = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.rstrip().splitlines()]
    except json.JSONDecodeError:
        labels = None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) and label for label in labels):
        raise ValueError(f"{path.name} should be a list of class names, none empty")
    return tuple(labels)


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; a value is JSON where it can be (3, true, [1,2]), else text.

    Raises:
        ValueError: a pair without `=`.
    """
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set needs NAME=VALUE, got {pair!r}")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def number_of_classes(given: int | None, labels: tuple[str, ...], state: StateDict | None) -> int:
    """Take the number of classes from the flag, the labels or the weights, in this order.

    Raises:
        ValueError: nothing says it, or flag and labels disagree.
    """
    if given is not None and labels and given != len(labels):
        raise ValueError(f"--num-classes {given} and {len(labels)} labels disagree")
    found = given if given is not None else len(labels) or (classes_in(state) if state else None)
    if found is None or found == 0:
        raise ValueError("how many classes? Give --num-classes, --labels, or --weights with a classifier (fc)")
    return found

"""The models that ship: one network trained with the best head, then tuned with each of the others, exported, verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from export.accuracy import FILLED, PLACED, Classify, Size, accuracy
from export.digits import LABELS, PREPROCESSING, Digits, joined, load_split
from export.monitor import torch_classifier
from export.network import Network
from export.train import Progress, Recipe, build, train
from export.verify import Comparison, write_verified
from graphs.card import ModelCard

BEST = "digits"
HEADS: dict[str, dict[str, Any]] = {
    BEST: {"pooling": "lse", "r": 5.0},
    "digits-gap": {"pooling": "gap"},
    "digits-gmp": {"pooling": "gmp"},
    "digits-attention": {"pooling": "attention", "hidden": 64},
}
"""Pooling head of each model; the first is trained from nothing."""

ROUNDS = (Recipe(steps=1500, horizon=9000), Recipe(steps=2000, warm_up=100, seed=1))
"""Of the first: the second round starts from the first one's averaged weights, with a fresh optimiser (a warm restart:
Loshchilov, Hutter, arXiv:1608.03983)."""
TUNING = (Recipe(steps=150, learning_rate=5e-4, warm_up=20, seed=2),)
"""Of the others, which start from the first's backbone and classifier."""

COMMAND = "python -m export models"
VERSION = "1"


def make_models(
    folder: Path,
    *,
    rounds: tuple[Recipe, ...] = ROUNDS,
    tuning: tuple[Recipe, ...] = TUNING,
    on_model: Callable[[str, int], None] | None = None,
    on_step: Callable[[str, Progress], None] | None = None,
    on_compared: Callable[[Comparison, int], None] | None = None,
    **backbone: Any,
) -> dict[str, Path]:
    """Train, export and verify all of HEADS.

    The digits of `train` and `validation` are trained on; those of `test` only give the accuracy that goes into the card.

    Args:
        folder: the model repository; `<name>/1/model.onnx` is written in it.
        rounds: of the first model, one after the other.
        tuning: of the others, likewise.
        on_model: called before each training with the model's name and its number of steps.
        on_step: called after each step with the model's name; the steps are counted over all rounds.
        on_compared: called by the verification, see write_verified.
        backbone: ConvNet's keyword arguments.

    Returns:
        The files by model name.

    Raises:
        VerificationError: a file would not have been the network; those written before it stay.
    """
    split = load_split()
    digits = joined(split.train, split.validation)
    files: dict[str, Path] = {}
    first: Network | None = None
    for name, head in HEADS.items():
        recipes = rounds if first is None else tuning
        if on_model is not None:
            on_model(name, sum(recipe.steps for recipe in recipes))
        seed = recipes[0].seed
        network = build(head, seed, **backbone) if first is None else with_head(first, head, seed, **backbone)
        done = 0
        for recipe in recipes:
            network = train(network, digits, recipe, on_step=on_step and _named(name, done, on_step))
            done += recipe.steps
        facts = {**told(recipes, len(digits.labels)), "command": COMMAND}
        if first is not None:
            facts["from"] = BEST
        first = first or network
        files[name] = folder / name / VERSION / "model.onnx"
        write_digits(network, files[name], split.test, facts, on_compared=on_compared)
    return files


def with_head(network: Network, head: dict[str, Any], seed: int, **backbone: Any) -> Network:
    """Build a network with another head on the same backbone and classifier, both copied.

    Args:
        network: left as it is.
        head: configuration of the new head, which must give as many features.
        seed: of the head's initial weights.
        backbone: the keyword arguments that the network's was built with.
    """
    other = build(head, seed, **backbone)
    other.backbone.load_state_dict(network.backbone.state_dict())
    other.classifier.load_state_dict(network.classifier.state_dict())
    return other


def write_digits(
    network: Network,
    path: Path,
    test: Digits,
    facts: dict[str, Any],
    *,
    seed: int = 0,
    on_compared: Callable[[Comparison, int], None] | None = None,
) -> None:
    """Export a digit network with a card that tells where its weights came from and what it gets right.

    Args:
        network: trained, in evaluation mode.
        path: of the model.onnx.
        test: digits to measure on.
        facts: on the training, for the card; the accuracy on `test` is added.
        seed: of the verification.
        on_compared: called by the verification.
    """
    # Measured in torch, before there is a file: the file is not written unless it gives the same numbers.
    measured = {label: round(share, 4) for label, share in quick_accuracy(torch_classifier(network), test).items()}
    card = ModelCard(
        description="Handwritten digits of 8 to 256 px, filling a picture or lying anywhere in one of any size",
        labels=LABELS,
        preprocessing=PREPROCESSING,
        backbone="convnet",
        license="Apache-2.0",
        training={**facts, "accuracy": measured},
    )
    write_verified(network, card, path, seed=seed, on_compared=on_compared)


def told(recipes: Sequence[Recipe], count: int) -> dict[str, Any]:
    """Give the facts on a training that go into the card.

    Args:
        recipes: that it was done by, round by round.
        count: digits that were trained on.
    """
    return {
        "data": f"{count} of scikit-learn's 1797 handwritten digits",
        "rounds": [asdict(recipe) for recipe in recipes],
    }


def quick_accuracy(classify: Classify, digits: Digits) -> dict[str, float]:
    """Measure at the sizes up to 128 px, which take seconds; report.py measures at all."""

    def name(size: Size) -> str:
        return f"{size} {'filled' if size.filled else 'placed'}"

    sizes = [size for size in (*FILLED, *PLACED) if size.width * size.height <= 128 * 128]
    return {name(size): accuracy(classify, digits, size) for size in sizes}


def _named(name: str, done: int, on_step: Callable[[str, Progress], None]) -> Callable[[Progress], None]:
    """Give the callback that adds the model's name and the steps of the rounds before."""
    return lambda progress: on_step(name, replace(progress, step=done + progress.step))

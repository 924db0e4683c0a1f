"""The models that ship: one network trained with the best head, then tuned with each of the others, exported, verified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.accuracy import FILLED, PLACED, Classify, Size, accuracy
from export.digits import LABELS, PREPROCESSING, Digits, joined, load_split
from export.network import Network
from export.report import session_classifier
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

RECIPE = Recipe()
"""Of the first."""
TUNING = Recipe(steps=300, learning_rate=5e-4, warm_up=50, seed=1)
"""Of the others, which start from the first's backbone and classifier."""

COMMAND = "python -m export models"
VERSION = "1"


def make_models(
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    tuning: Recipe = TUNING,
    on_model: Callable[[str, Recipe], None] | None = None,
    on_step: Callable[[str, Progress], None] | None = None,
    on_compared: Callable[[Comparison, int], None] | None = None,
) -> dict[str, Path]:
    """Train, export and verify all of HEADS.

    The digits of `train` and `validation` are trained on; those of `test` only give the accuracy that goes into the card.

    Args:
        folder: the model repository; `<name>/1/model.onnx` is written in it.
        recipe: of the first model.
        tuning: of the others.
        on_model: called before each training with the model's name and recipe.
        on_step: called after each step with the model's name.
        on_compared: called by the verification, see write_verified.

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
        how = recipe if first is None else tuning
        if on_model is not None:
            on_model(name, how)
        start = build(head, how.seed) if first is None else with_head(first, head, how.seed)
        report = None if on_step is None else _named(name, on_step)
        network = train(start, digits, how, on_step=report)
        first = first or network
        files[name] = folder / name / VERSION / "model.onnx"
        facts = {**told(how, len(digits.labels)), "command": COMMAND}
        if name != BEST:
            facts["from"] = {"model": BEST, "recipe": asdict(recipe)}
        write_digits(network, files[name], split.test, facts, on_compared=on_compared)
    return files


def with_head(network: Network, head: dict[str, Any], seed: int) -> Network:
    """Build a network with another head on the same backbone and classifier, both copied.

    Args:
        network: left as it is.
        head: configuration of the new head, which must give as many features.
        seed: of the head's initial weights.
    """
    other = build(head, seed)
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
    """Export a digit network with a card that tells where its weights came from and what the file itself gets right.

    Args:
        network: trained.
        path: of the model.onnx.
        test: digits to measure on.
        facts: on the training, for the card; the accuracy on `test` is added.
        seed: of the verification.
        on_compared: called by the verification.
    """
    card = ModelCard(
        description="Handwritten digits, 8 px or larger, filling a picture of any size or lying anywhere in it",
        labels=LABELS,
        preprocessing=PREPROCESSING,
        backbone="convnet",
        license="Apache-2.0",
        training=facts,
    )
    write_verified(network, card, path, seed=seed, on_compared=on_compared)
    # Measured on the file, so the file is written twice: the second time with what the first one got right.
    classify = session_classifier(path)
    measured = {label: round(value, 4) for label, value in quick_accuracy(classify, test).items()}
    card = card.model_copy(update={"training": {**facts, "accuracy": measured}})
    write_verified(network, card, path, seed=seed, on_compared=on_compared)


def told(recipe: Recipe, count: int) -> dict[str, Any]:
    """Give the facts on a training that go into the card.

    Args:
        recipe: that it was done by.
        count: digits that were trained on.
    """
    return {"data": f"{count} of scikit-learn's 1797 handwritten digits", "recipe": asdict(recipe)}


def quick_accuracy(classify: Classify, digits: Digits) -> dict[str, float]:
    """Measure at the sizes up to 128 px, which take seconds; report.py measures at all."""

    def name(size: Size) -> str:
        return f"{size} {'filled' if size.filled else 'placed'}"

    sizes = [size for size in (*FILLED, *PLACED) if size.width * size.height <= 128 * 128]
    return {name(size): accuracy(classify, digits, size) for size in sizes}


def _named(name: str, on_step: Callable[[str, Progress], None]) -> Callable[[Progress], None]:
    """Give the callback that adds the model's name."""
    return lambda progress: on_step(name, progress)

"""Where torch meets ONNX Runtime: a model is written to a file only after it agreed with its network.

`write_verified` is the one public function that writes a model file, and it cannot be told not to compare.
"""

from __future__ import annotations

import copy
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch

from export.network import Network, evaluating
from export.to_onnx import INPUT, OUTPUTS, to_onnx
from graphs.card import ModelCard

TOLERANCE = 1e-5
"""Largest relative error: max |ONNX Runtime − torch| / max |torch|, for each output of each batch.

What torch itself loses in float32 is not the file's error, and counts where it is all that there is: one network in some thousands
has a batch whose features nearly cancel, and torch is off by 1e-5 of what is left.
"""

_OWN = 4
"""Times torch's own rounding that is allowed for: the file's may be as large, and the other way."""

Array = npt.NDArray[np.float32]


class VerificationError(Exception):
    """ONNX Runtime's answers are not the network's; the message says at which size, by how much, and with which seed."""


class Comparison(NamedTuple):
    """One batch compared: its shape (N,C,H,W), and the larger of the two outputs' relative errors."""

    shape: tuple[int, int, int, int]
    error: float


def write_verified(
    network: Network,
    card: ModelCard,
    path: Path,
    *,
    seed: int | None = None,
    on_compared: Callable[[Comparison, int], None] | None = None,
) -> list[Comparison]:
    """Export a network, compare the file with it, and only then give the file its name.

    Args:
        network: exported and compared as in evaluation; its mode is restored.
        card: see `to_onnx`.
        path: of the model.onnx; its folder is made, a file that is there is replaced at once or not at all.
        seed: of the random images; None draws a fresh one.
        on_compared: called after each batch with the comparison and the number of batches, for a progress bar.

    Returns:
        What was compared, batch by batch.

    Raises:
        VerificationError: the two disagree; no file is left, and a file that was at `path` is as it was.
        ValueError: the card does not fit the network.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    model = to_onnx(network, card)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        ir.save(model, part)  # initializers inside the file
        compared = verify(network, part, seed=seed, on_compared=on_compared)
        part.chmod(0o644)  # mkstemp makes it the owner's alone
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return compared


def verify(
    network: Network,
    path: Path,
    *,
    seed: int | None = None,
    on_compared: Callable[[Comparison, int], None] | None = None,
) -> list[Comparison]:
    """Compare a model file with the network it should be, on random images at sizes and batches it was not traced with.

    Args:
        network: compared as in evaluation; its mode is restored.
        path: of a model.onnx with a card.
        seed: of the random images; None draws a fresh one.
        on_compared: called after each batch with the comparison and the number of batches.

    Returns:
        What was compared, batch by batch.

    Raises:
        VerificationError: the file is not valid ONNX, has no card, or differs from the network by more than TOLERANCE.
    """
    seed = secrets.randbits(32) if seed is None else seed
    card = _checked(path)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; a mismatch is raised here, not logged there
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common class of their own
        raise VerificationError(f"ONNX Runtime does not load {path.name}: {error}") from error
    random = np.random.default_rng(seed)
    batches = unseen_shapes(card)
    compared = []
    for shape in batches:
        images = _random_images(random, shape, card)
        with evaluating(network):
            expected = [output.numpy() for output in network(torch.from_numpy(images))]
        try:
            actual = session.run(list(OUTPUTS), {INPUT: images})
        except Exception as error:  # as above
            raise VerificationError(f"ONNX Runtime fails at (N,C,H,W) = {shape}, seed {seed}: {error}") from error
        for output, wanted, got in zip(OUTPUTS, expected, actual, strict=True):
            if wanted.shape != got.shape:
                raise VerificationError(
                    f"{output} at (N,C,H,W) = {shape}: torch gives shape {wanted.shape}, ONNX Runtime {got.shape}"
                )
        errors = [relative_error(wanted, got) for wanted, got in zip(expected, actual, strict=True)]
        if not max(errors) <= TOLERANCE:
            errors = [
                relative_error(wanted, got, rounding=_OWN * own)
                for wanted, got, own in zip(expected, actual, _rounding(network, images, expected), strict=True)
            ]
        for output, off in zip(OUTPUTS, errors, strict=True):
            if not off <= TOLERANCE:
                raise VerificationError(
                    f"{output} at (N,C,H,W) = {shape}, seed {seed}: relative error {off:.2e}, allowed {TOLERANCE:.0e}"
                )
        compared.append(Comparison(shape, max(errors)))
        if on_compared is not None:
            on_compared(compared[-1], len(batches))
    return compared


def unseen_shapes(card: ModelCard) -> list[tuple[int, int, int, int]]:
    """List the batches a model with this card is compared at: (N,C,H,W), smallest sizes first."""
    c, h, w = card.preprocessing.channel_count, card.min_height, card.min_width
    return [
        (1, c, h, w),  # the smallest
        (5, c, h, w),
        (3, c, h + 1, w + 1),  # one pixel above
        (2, c, h + 1, w),
        (1, c, h + 16, w + 32),
        (2, c, h + 30, w + 46),  # odd where the minimum is odd, even where it is even; then the other way round
        (3, c, h + 37, w + 61),
        (1, c, h, w + 210),  # wide
        (2, c, h + 210, w),  # tall
        (1, c, h + 223, w + 223),
        (2, c, h + 299, w + 400),  # large
    ]


def relative_error(expected: Array, actual: Array, *, rounding: float = 0.0) -> float:
    """Give max |actual − expected| / max |expected|; 0 where both are all 0, infinite where either is not finite.

    Args:
        expected: any shape.
        actual: the same shape.
        rounding: part of the difference that is forgiven.
    """
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return float("inf")
    difference = max(0.0, float(np.abs(actual.astype(np.float64) - expected).max()) - rounding)
    scale = float(np.abs(expected).max())
    return 0.0 if difference == 0 else difference / scale if scale > 0 else float("inf")


def _rounding(network: Network, images: Array, outputs: list[Array]) -> list[float]:
    """Give the largest difference of each output, in float32, from what the network gives in float64."""
    exact = copy.deepcopy(network).double()
    with evaluating(exact):
        wanted = [output.numpy() for output in exact(torch.from_numpy(images).double())]
    return [float(np.abs(one - other).max()) for one, other in zip(outputs, wanted, strict=True)]


def _checked(path: Path) -> ModelCard:
    """Read the card of a file that onnx's checker accepts."""
    try:
        onnx.checker.check_model(path, full_check=True)
        card = ModelCard.read(ir.load(path))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise VerificationError(f"{path.name} is not a valid model: {error}") from error
    if card is None:
        raise VerificationError(f"{path.name} has no card in its metadata")
    return card


def _random_images(random: np.random.Generator, shape: tuple[int, int, int, int], card: ModelCard) -> Array:
    """Draw uint8 noise and preprocess it as the card says: (N,C,H,W) float32, the range that the network will meet.

    The last image of several is one flat colour: the constant maps it makes show sums that drift, which noise hides.
    """
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    if len(pixels) > 1:
        pixels[-1] = random.integers(0, 256, (shape[1], 1, 1), dtype=np.uint8)
    steps = card.preprocessing
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (steps.mean, steps.std))
    images: Array = ((pixels * steps.scale - mean) / std).astype(np.float32)
    return images

"""A network as an ONNX graph, in memory: opset 20, dynamic batch, height and width, the card in the metadata.

Writing it to a file is verify.py's business alone, so that no file exists that was not compared with its network.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import onnx_ir as ir
import torch
from torch import Tensor

from export.network import Network, evaluating
from graphs.card import ModelCard

OPSET = 20
"""Highest opset at which ONNX Runtime 1.31's CUDA provider still has a MaxPool (it has none at 22 and later)."""

INPUT = "images"
OUTPUTS = ("logits", "embedding")
LARGEST_MINIMUM = 512
"""Pixels. A network that takes no square of this side either is taken to be broken, not to need a larger one."""


def to_onnx(network: Network, card: ModelCard) -> ir.Model:
    """Convert a network to an ONNX model.

    Input `images` (batch,C,height,width) float32, preprocessed; outputs `logits` (batch,K) and `embedding` (batch,D).
    The same network gives the same bytes. Nothing of this machine (paths in stack traces, module names) is left in the
    model.

    Args:
        network: exported as in evaluation, whatever its mode; the mode is restored.
        card: description, labels, preprocessing and the like. What the network itself knows (the names of input and
        outputs,
            head, smallest size) is filled in here, over anything that stands there.

    Returns:
        The model, checked by nothing yet.

    Raises:
        ValueError: labels or channels of the card do not fit the network, or the network takes no size up to
        LARGEST_MINIMUM.
    """
    if card.labels and len(card.labels) != network.num_classes:
        raise ValueError(f"the card has {len(card.labels)} labels, the network {network.num_classes} classes")
    if card.preprocessing.channel_count != network.in_channels or card.preprocessing.layout != "NCHW":
        raise ValueError(
            f"the network takes {network.in_channels} channels as NCHW, the card's preprocessing gives "
            f"{card.preprocessing.channel_count} ({card.preprocessing.channels}) as {card.preprocessing.layout}"
        )
    min_height, min_width = smallest_size(network)
    # A size with nothing special about it: both sides differ, and no map on the way is 1 pixel wide or equal to another
    # axis.
    height, width = min_height + 4 * network.total_stride + 1, min_width + 5 * network.total_stride + 2
    example = torch.zeros(2, network.in_channels, height, width)
    with evaluating(network), _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model
    _forget_origin(model)
    model.producer_name, model.producer_version = "poolserve", version("poolserve")
    model.graph.name = "network"
    model.doc_string = card.description or None
    filled = {
        "input": INPUT,
        "output": OUTPUTS[0],
        "embedding": OUTPUTS[1],
        "min_height": min_height,
        "min_width": min_width,
        "head": network.head_config,
    }
    ModelCard.model_validate({**card.model_dump(), **filled}).write(model)
    return model


def smallest_size(network: Network) -> tuple[int, int]:
    """Find the smallest height and width that a network takes, by trying.

    Args:
        network: any; its mode is restored.

    Returns:
        (height, width) in pixels: the sides of the smallest square that works, each then lowered while the other one
        stays.

    Raises:
        ValueError: no square up to LARGEST_MINIMUM works; the message has the network's own error.
    """
    error: Exception | None = None

    def works(height: int, width: int) -> bool:
        nonlocal error
        try:
            logits, embedding = network(torch.zeros(1, network.in_channels, height, width))
        except RuntimeError as exception:  # what torch raises for a map that would become empty
            error = exception
            return False
        finite: Tensor = logits.isfinite().all() & embedding.isfinite().all()
        return bool(finite)

    with evaluating(network):
        side = next((side for side in range(1, LARGEST_MINIMUM + 1) if works(side, side)), None)
        if side is None:
            reason = error or "its outputs are not finite"
            raise ValueError(f"the network takes no image up to {LARGEST_MINIMUM}×{LARGEST_MINIMUM}: {reason}")
        height = next(height for height in range(1, side + 1) if works(height, side))
        width = next(width for width in range(1, side + 1) if works(height, width))
    return height, width


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep three messages of torch 2.13's exporter away that are about itself and that nobody here can act on."""
    loggers = [
        logging.getLogger("torch.onnx._internal.exporter._registration"),  # torchvision is not installed, four times
        logging.getLogger("torch.fx.experimental.symbolic_shapes"),  # sympy could not simplify H//4 (pyramids); no harm
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch.export copies its own tree specs in a way that torch.utils._pytree has deprecated.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _forget_origin(model: ir.Model) -> None:
    """Take the exporter's notes away: stack traces with this machine's paths, module names, symbolic shapes' origins."""
    model.metadata_props.clear()
    for graph in model.graphs():
        graph.metadata_props.clear()
        graph.doc_string = None
        for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()

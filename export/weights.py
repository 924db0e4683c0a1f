"""Weights that people bring: a state dict from a file, safely, into a network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from export.network import Network

StateDict = dict[str, Tensor]


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict that torch.save wrote; nothing in the file is executed.

    Takes a bare state dict, or one under `state_dict` or `model` as training scripts leave it, and takes the prefix
    `module.` of DataParallel off.

    Args:
        path: of a .pt or .pth file.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        ValueError: the file holds something else than tensors by name.
        OSError: it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # on bytes that are no pickle torch's restricted reader raises whatever it stumbles over
        raise ValueError(
            f"{path.name} is not a state dict written by torch.save (pickled models are not read)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path.name} should hold a dict of tensors by name, it holds {_what(content)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def classes_in(state: StateDict) -> int | None:
    """Give the number of classes that a state dict's classifier has; None where it has no classifier."""
    bias = state.get("fc.bias", state.get("classifier.bias"))
    return None if bias is None else len(bias)


def load_weights(network: Network, state: StateDict) -> list[str]:
    """Put a state dict into a network.

    Either one of a whole Network (`backbone.…`, `head.…`, `classifier.…`), or one of a backbone alone in its usual
    names, such as torchvision's, whose `fc` becomes the classifier where it fits.

    Args:
        network: takes the weights.
        state: see `read_state_dict`.

    Returns:
        Names that were left out, because the classifier is of another shape (another number of classes, or a head with
        another width): the network's own classifier is then as it was. Empty: everything went in.

    Raises:
        ValueError: anything else is missing, left over or of another shape.
    """
    if any(name.startswith("backbone.") for name in state):
        whole = dict(state)
    else:
        whole = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
        whole |= {
            name.replace("fc.", "classifier."): tensor for name, tensor in state.items() if name.startswith("fc.")
        }
        whole |= {f"head.{name}": tensor for name, tensor in network.head.state_dict().items()}
    own = {f"classifier.{name}": tensor for name, tensor in network.classifier.state_dict().items()}
    misfits = [name for name, tensor in own.items() if name not in whole or whole[name].shape != tensor.shape]
    if misfits:
        whole |= own
    wanted = network.state_dict()
    problems = {
        "missing": [
            n for n in wanted if n not in whole and not n.endswith(".num_batches_tracked")
        ],  # old files lack it
        "left over": [n for n in whole if n not in wanted],
        "of another shape": [n for n in wanted if n in whole and wanted[n].shape != whole[n].shape],
    }
    if any(problems.values()):
        said = [
            f"{len(names)} {what} ({', '.join(names[:3])}{' …' * (len(names) > 3)})"
            for what, names in problems.items()
            if names
        ]
        raise ValueError(f"the weights do not fit {type(network.backbone).__name__}: {'; '.join(said)}")
    network.load_state_dict({**{n: t for n, t in wanted.items() if n not in whole}, **whole})
    return [name for name in state if misfits and name.startswith(("fc.", "classifier."))]


def _what(content: object) -> str:
    if isinstance(content, dict):
        others = sorted({type(value).__name__ for value in content.values() if not isinstance(value, Tensor)})
        return f"a dict with {', '.join(others)}" if others else "an empty dict"
    return type(content).__name__

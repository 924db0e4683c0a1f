"""A model that has a config.pbtxt, as clients of Triton know it: its graph's own inputs and outputs, of the dims that it says.

With `max_batch_size` 0 a request is one sample whose shape is that of the dims, with a batch axis or without, and so is its answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from service.codecs.oip.response import Output
from service.runtime.batcher import Answer
from service.runtime.configuration import Tensor
from service.runtime.model import Model


def own_outputs(model: Model) -> Sequence[str]:
    """Give the names of the graph's own outputs that clients see: those configured, else all; none without a config.pbtxt."""
    if model.configuration is None:
        return ()
    return [tensor.name for tensor in model.configuration.outputs] or list(model.network.outputs)


def own_place(model: Model, name: str) -> int | None:
    """Say which of the network's outputs a name means; None where it means none that clients see."""
    return list(model.network.outputs).index(name) if name in own_outputs(model) else None


def configured_input(model: Model) -> Tensor | None:
    """Give what config.pbtxt says of the input, if it says anything."""
    inputs = model.configuration.inputs if model.configuration else ()
    return next((tensor for tensor in inputs if tensor.name == model.own_input.name), None)


def configured_output(model: Model, name: str) -> Tensor | None:
    """Give what config.pbtxt says of an output, if it says anything."""
    outputs = model.configuration.outputs if model.configuration else ()
    return next((tensor for tensor in outputs if tensor.name == name), None)


def is_single(model: Model) -> bool:
    """Whether requests to a model's own input have no batch axis."""
    tensor = configured_input(model)
    return tensor is not None and model.configuration is not None and not model.configuration.max_batch_size


def own_output(model: Model, name: str, place: int, answers: Sequence[Answer]) -> Output:
    """Gather one of the graph's own outputs, in the shape that is configured.

    Args:
        model: that has answered.
        name: of the output.
        place: of it among the network's.
        answers: one a sample, at least one.
    """
    rows = [answer.outputs[place] for answer in answers]
    stacked = rows[0][None] if len(rows) == 1 else np.stack(rows)  # (N, …)
    tensor, single = configured_output(model, name), is_single(model)
    if tensor is not None and tensor.dims:
        stacked = _reshaped(stacked, tensor.dims if single else (len(rows), *tensor.dims))
    samples = not single or len(rows) > 1
    return Output(name, stacked, samples, model.card.labels if place == model.scores_place else ())


def _reshaped(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Give an array a shape of which one size may be free (-1); as it is, where that cannot be."""
    free, fixed = shape.count(-1), math.prod(size for size in shape if size != -1)
    fits = fixed == array.size if free == 0 else free == 1 and fixed > 0 and array.size % fixed == 0
    return array.reshape(shape) if fits else array

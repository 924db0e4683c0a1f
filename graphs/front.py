"""The graph's front: takes pixels (uint8 N,H,W,C) in place of the network's own input, from the card's preprocessing.

So a batch crosses to the device as bytes, a quarter of float32, and no arithmetic on pixels is done in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.card import ModelCard

PIXELS = "pixels"
"""Name of the input that `attach_front` gives a graph."""


class FrontError(ValueError):
    """The card and the graph do not fit each other; says what was expected and what the graph has."""


@dataclass(frozen=True)
class Geometry:
    """What the graph's image input fixes; None is dynamic.

    Attributes:
        batch: images per run.
        height: pixels.
        width: pixels.
    """

    batch: int | None
    height: int | None
    width: int | None


def image_input(model: ir.Model, card: ModelCard) -> ir.Value:
    """Find the graph's image input.

    Raises:
        FrontError: there is none of that name, there are several and the card names none, or it is not of rank 4.
    """
    initializers = set(model.graph.initializers)
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    names = [value.name for value in inputs]
    if card.input is None and len(inputs) != 1:
        raise FrontError(
            f"the graph has the inputs {names}; the card's `input` must name the image, and only one is fed"
        )
    matches = [value for value in inputs if card.input in {None, value.name}]
    if not matches or len(inputs) != 1:
        raise FrontError(f"expected one input named {card.input!r}, the graph has {names}")
    value = matches[0]
    if value.shape is None or len(value.shape) != 4:
        raise FrontError(f"input {value.name!r}: expected rank 4 (a batch of images), got shape {value.shape}")
    return value


def make_room(graph: ir.Graph, name: str) -> None:
    """Rename what a graph computes under a name that an input is to have; outputs keep theirs."""
    for value in (value for node in graph for value in node.outputs):
        if value.name == name and not value.is_graph_output():
            value.name = f"{name}/own"


def _fixed(dimension: object) -> int | None:
    return dimension if isinstance(dimension, int) else None


def attach_front(model: ir.Model, card: ModelCard) -> Geometry:
    """Put the card's preprocessing before the graph, in place: uint8 pixels (N,H,W,C) in, y = (x · scale − mean) / std.

    Channels of `pixels` are RGB, or one of luma where the card's are `L`. A graph whose input is uint8 already only has its
    layout changed. Float16 networks get float16 after the arithmetic was done in float32.

    Returns:
        The sizes that the graph fixes.

    Raises:
        FrontError: the input is no image of the card's channels, or of a dtype other than uint8, float16 and float32.
    """
    value = image_input(model, card)
    preprocessing = card.preprocessing
    channels_first = preprocessing.layout == "NCHW"
    assert value.shape is not None  # image_input has checked it
    n, second, third, fourth = (_fixed(value.shape[axis]) for axis in range(4))
    channels, height, width = (second, third, fourth) if channels_first else (fourth, second, third)
    if channels not in {None, preprocessing.channel_count}:
        raise FrontError(
            f"input {value.name!r} has {channels} channels in layout {preprocessing.layout}; "
            f"the card's channels {preprocessing.channels!r} are {preprocessing.channel_count}"
        )
    if value.dtype not in {ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.FLOAT}:
        raise FrontError(f"input {value.name!r}: expected uint8, float16 or float32, got {value.dtype}")

    shape = ir.Shape([value.shape[0], height or "height", width or "width", preprocessing.channel_count])
    pixels = ir.Value(name=PIXELS, shape=shape, type=ir.TensorType(ir.DataType.UINT8))
    tape = ir.tape.Tape()

    def constant(array: np.ndarray) -> ir.Value:
        return tape.initializer(ir.tensor(array, name=f"front/constant_{len(tape.nodes)}"))

    current = pixels
    if preprocessing.channels == "BGR":
        current = tape.op("Gather", [current, constant(np.array([2, 1, 0], np.int64))], {"axis": 3})
    if channels_first:
        current = tape.op(
            "Transpose", [current], {"perm": [0, 3, 1, 2]}
        )  # (N,H,W,C) -> (N,C,H,W), while it is still bytes
    if value.dtype != ir.DataType.UINT8:
        std = np.broadcast_to(np.array(preprocessing.std, np.float64), preprocessing.channel_count)
        mean = np.broadcast_to(np.array(preprocessing.mean, np.float64), preprocessing.channel_count)
        per_channel = (-1, 1, 1) if channels_first else (-1,)
        current = tape.op("Cast", [current], {"to": int(ir.DataType.FLOAT)})
        current = tape.op(
            "Mul", [current, constant((preprocessing.scale / std).astype(np.float32).reshape(per_channel))]
        )
        if mean.any():
            current = tape.op("Sub", [current, constant((mean / std).astype(np.float32).reshape(per_channel))])
        if value.dtype == ir.DataType.FLOAT16:
            current = tape.op("Cast", [current], {"to": int(ir.DataType.FLOAT16)})

    make_room(model.graph, PIXELS)
    index = list(model.graph.inputs).index(value)
    value.replace_all_uses_with(current)
    model.graph.inputs[index] = pixels
    for initializer in tape.initializers:
        model.graph.register_initializer(initializer)
    first = model.graph[0]
    for place, node in enumerate(tape.nodes):
        node.name = node.outputs[0].name = f"front/{place}_{node.op_type}"
        model.graph.insert_before(first, node)
    return Geometry(n, height, width)

"""The card of a model that has none and that a config.pbtxt describes, so that a Triton repository is served as it is.

Triton's clients send numbers that they have prepared themselves, and these reach the network's own input as they are. How pixels
become such numbers no config.pbtxt says: pictures are scaled to 0…1 and nothing else, until a model.json says better.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from pathlib import PurePosixPath

import onnx_ir as ir

from graphs.card import ModelCard, Preprocessing
from service.runtime.broken import BrokenModel
from service.runtime.configuration import Configuration, Tensor
from service.runtime.inside import read_inside

log = logging.getLogger(__name__)

_MAX_LABEL_BYTES = 2**24

_ONNX_NAMES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BFLOAT16": "BF16"}
"""Of ONNX's data types, those that Triton calls otherwise."""

_KEEPS_VALUES = {"Identity", "Flatten", "Reshape", "Squeeze"}


def describe(graph: ir.Model, configuration: Configuration) -> ModelCard:
    """Make a card; an output of more axes than (N,K), such as (N,K,1,1), is flattened in the graph, in place.

    Args:
        graph: as read.
        configuration: of the model.

    Raises:
        BrokenModel: the graph does not have what the configuration says, or the file of labels cannot be read.
    """
    given = [value for value in graph.graph.inputs if value.name not in graph.graph.initializers]
    _match("input", configuration.inputs, given, configuration)
    _match("output", configuration.outputs, list(graph.graph.outputs), configuration)
    preprocessing = _preprocessing(given, configuration)
    labelled = [output for output in configuration.outputs if output.label_filename]
    chosen = next(iter([*labelled, *configuration.outputs]), None)
    output = next(value for value in graph.graph.outputs if chosen is None or value.name == chosen.name)
    name = str(output.name)
    activation = "none" if _is_probability(output) else "softmax"
    classes = _flattened(graph, output)
    if classes is None and chosen is not None and min(chosen.dims, default=-1) > 0:
        classes = math.prod(chosen.dims)
    labels = _labels(chosen, classes, configuration) if chosen else ()
    _warn(configuration.folder.name, preprocessing.channels, preprocessing.layout)
    return ModelCard(
        labels=labels,
        preprocessing=preprocessing,
        input=configuration.inputs[0].name if configuration.inputs else None,
        output=name,
        activation=activation,
    )


@lru_cache(1024)
def _warn(model: str, channels: str, layout: str) -> None:
    """Say what was assumed; once, though a model is read again and again."""
    log.warning(
        "model %s: has no card; by its config.pbtxt it takes %s in layout %s, and pictures are scaled to 0…1 without mean and std. "
        "Numbers for its own input are taken as they are. If it was trained otherwise, put a model.json beside its file",
        model,
        channels,
        layout,
    )


def _match(kind: str, configured: tuple[Tensor, ...], values: list[ir.Value], configuration: Configuration) -> None:
    """Check that the graph has what is configured: names, types and, where both fix them, sizes."""
    by_name = {str(value.name): value for value in values}
    for tensor in configured:
        said = f"config.pbtxt: {kind} {tensor.name[:128]!r}"
        value = by_name.get(tensor.name)
        if value is None:
            raise BrokenModel(f"{said}: the graph has {sorted(by_name)[:8]}", configuration.folder)
        dtype = value.dtype.name if value.dtype else "UNDEFINED"
        if tensor.data_type not in {"TYPE_INVALID", f"TYPE_{_ONNX_NAMES.get(dtype, dtype)}"}:
            raise BrokenModel(
                f"{said}: its data_type is {tensor.data_type}, the graph's is {dtype}", configuration.folder
            )
        shape = _sizes(value)
        dims = tensor.dims if tensor.reshape is None else tensor.reshape
        own = shape[1:] if shape and configuration.max_batch_size else shape
        fits = own is None or (
            len(own) == len(dims) and all(a == b or -1 in (a, b) for a, b in zip(own, dims, strict=True))
        )
        if not fits:
            of = ", the first of them of the batch" if configuration.max_batch_size else ""
            raise BrokenModel(
                f"{said}: its dims are {list(dims)}, the graph's shape is {shape}{of}", configuration.folder
            )


def _sizes(value: ir.Value) -> list[int] | None:
    """Give a value's shape; -1 is any size. None where its rank is not known."""
    return None if value.shape is None else [size if isinstance(size, int) else -1 for size in value.shape]


def _preprocessing(given: list[ir.Value], configuration: Configuration) -> Preprocessing:
    """Say where the channels are and how many: by the format, else by where 1 or 3 stands."""
    if len(given) != 1 or len(configuration.inputs) > 1:
        names = [str(value.name) for value in given][:8]
        raise BrokenModel(f"expected one input, of images; the graph has {names}", configuration.folder)
    tensor = configuration.inputs[0] if configuration.inputs else Tensor(str(given[0].name))
    shape = _sizes(given[0]) or []
    if len(shape) != 4:
        raise BrokenModel(
            f"input {tensor.name!r}: expected 4 axes, of images; the graph has {shape}", configuration.folder
        )
    dims = tensor.dims if tensor.reshape is None else tensor.reshape
    dims = (-1, *dims) if configuration.max_batch_size else dims
    if len(dims) == 4:
        shape = [size if size > 0 else dim for size, dim in zip(shape, dims, strict=True)]
    last = tensor.format == "FORMAT_NHWC"
    if tensor.format == "FORMAT_NONE":
        last = shape[3] in {1, 3} and shape[1] not in {1, 3}
    count = shape[3 if last else 1]
    if count not in {1, 3, -1}:
        raise BrokenModel(
            f"input {tensor.name!r}: expected 1 or 3 channels, got {count} in {shape}", configuration.folder
        )
    return Preprocessing(channels="L" if count == 1 else "RGB", layout="NHWC" if last else "NCHW")


def _is_probability(output: ir.Value) -> bool:
    """Whether an output is a softmax's or a sigmoid's."""
    node = output.producer()
    while node is not None and node.op_type in _KEEPS_VALUES and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and not node.domain and node.op_type in {"Softmax", "Sigmoid"}


def _flattened(graph: ir.Model, output: ir.Value) -> int | None:
    """Give an output the axes (N,K) if it has more. Returns K, where it is known."""
    shape = _sizes(output)
    if shape is None or len(shape) < 2:
        return None
    classes = math.prod(shape[1:]) if min(shape[1:]) > 0 else None
    if len(shape) > 2:
        name, place = str(output.name), list(graph.graph.outputs).index(output)
        output.name = f"{name}/unflattened"
        flat = ir.Value(name=name, type=output.type, shape=ir.Shape([output.shape[0], classes]))  # type: ignore[index]
        node = ir.Node("", "Flatten", [output], {}, outputs=[flat], name=f"{name}/flatten")  # (N,K,1,1) -> (N,K)
        graph.graph.append(node)
        graph.graph.outputs[place] = flat
    return classes


def _labels(tensor: Tensor, classes: int | None, configuration: Configuration) -> tuple[str, ...]:
    """Read an output's file of labels, line i naming class i. As to Triton, a class without a line has no name but its index."""
    if not tensor.label_filename:
        return ()
    name = str(PurePosixPath(tensor.label_filename))
    data = read_inside(configuration.folder, name, _MAX_LABEL_BYTES)
    path = configuration.folder / name
    if data is None:
        raise BrokenModel(f"config.pbtxt: label_filename: there is no {name[:128]!r}", path)
    try:
        labels = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{name[:128]}: expected class names in UTF-8, byte {error.start} is not", path) from error
    while labels and not labels[-1]:
        labels.pop()
    if classes is not None and len(labels) != classes:
        log.warning("model %s: %s has %d labels, the output %d", configuration.folder.name, name, len(labels), classes)
        labels = labels[:classes] + [str(i) for i in range(len(labels), classes)]
    return tuple(labels)

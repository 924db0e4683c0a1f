"""Weights that lie in files beside a model's (ONNX external data): checked before anything opens them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import onnx_ir as ir

from service.runtime.broken import BrokenModel
from service.runtime.inside import find_inside


def check_weights(graph: ir.Model, path: Path) -> None:
    """Check where a model's weights lie, and that they are all there.

    Args:
        graph: as read, its external data not yet loaded.
        path: of the model's file.

    Raises:
        BrokenModel: a file is outside the folder of the model's file or no regular file, bytes are asked for that it does not
            have or that do not fit the tensor's shape, or what is no initializer lies in a file.
    """
    for tensor in _external(graph, path):
        _check(tensor, path)


def _external(graph: ir.Model, path: Path) -> list[ir.ExternalTensor]:
    """Gather tensors that lie in files; each once. Those in nodes' attributes are refused: nothing loads them."""
    found = {}
    for part in graph.graphs():  # with those below nodes, and in functions
        for value in part.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                found[id(value.const_value)] = value.const_value
        for node in part:
            for attribute in node.attributes.values():
                tensors = [attribute.value] if attribute.type == ir.AttributeType.TENSOR else []
                tensors = list(attribute.value) if attribute.type == ir.AttributeType.TENSORS else tensors
                if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
                    raise BrokenModel(
                        f"node {node.name or '?'} ({node.op_type}): expected its attribute {attribute.name} in the model's "
                        "file, it lies in another; only initializers can",
                        path,
                    )
    return list(found.values())


def _check(tensor: ir.ExternalTensor, path: Path) -> None:
    named, location = f"{path.name}: weights {str(tensor.name)[:128]!r}", str(tensor.location)
    where = PurePosixPath(location)
    if not location or "\0" in location or where.is_absolute() or ".." in where.parts or "\\" in location:
        raise BrokenModel(f"{named}: expected a file in the model's folder, got {location[:128]!r}", path)
    try:
        real = find_inside(path.parent, path.parent / location)
    except BrokenModel as error:
        raise BrokenModel(f"{named}: {error.reason}", path) from error
    stat = real.stat()
    if stat.st_nlink > 1:  # onnx_ir refuses it, too
        raise BrokenModel(
            f"{named}: expected a file with one name, {location[:128]} has {stat.st_nlink} hard links", path
        )
    if not tensor.shape.is_static():
        raise BrokenModel(f"{named}: expected a shape of numbers, got {tensor.shape}", path)
    try:
        offset, needed = tensor.offset or 0, tensor.nbytes
    except TypeError as error:  # strings, or no type at all
        raise BrokenModel(f"{named}: expected numbers, it is of type {tensor.dtype.name}", path) from error
    length = needed if tensor.length is None else tensor.length
    if length != needed:
        raise BrokenModel(f"{named}: its shape {tensor.shape} takes {needed} bytes, it has a length of {length}", path)
    if offset < 0 or needed < 0 or offset + length > stat.st_size:
        raise BrokenModel(
            f"{named}: expected bytes {offset} to {offset + length} of {location[:128]}, it has {stat.st_size}", path
        )

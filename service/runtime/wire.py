"""A graph as the bytes of an ONNX file, a tensor at a time: protobuf keeps the interpreter's lock while it writes a message."""

from __future__ import annotations

import onnx_ir as ir

_GRAPH, _INITIALIZER = b"\x3a", b"\x2a"
"""Tags of ModelProto.graph (7) and GraphProto.initializer (5), both length-delimited (protobuf.dev/programming-guides/encoding)."""


def to_bytes(graph: ir.Model) -> bytes:
    """Serialise a model.

    With one message for all, whoever answers requests meanwhile waits 60 ms for a ResNet-18; with one for each tensor 8, and
    it takes no longer. A field of a message that is there twice is merged, so the initializers can follow as a second `graph`.
    """
    proto = ir.to_proto(graph)
    parts: list[bytes] = []
    for tensor in proto.graph.initializer:
        data = tensor.SerializeToString()
        parts += [_INITIALIZER + _varint(len(data)), data]
    del proto.graph.initializer[:]
    length = sum(map(len, parts))
    return b"".join([proto.SerializeToString(), _GRAPH + _varint(length), *parts])


def _varint(number: int) -> bytes:
    """Write a length: seven bits a byte, the lowest first, the highest bit where more follow."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])

"""A graph being written: a tape of ONNX nodes with its inputs and constants, serialised at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

OPSET = 20
"""From 22 on MaxPool has no CUDA kernel in ONNX Runtime 1.31; ReduceMax takes every integer type that it ever takes at 20."""

Attribute = int | float | str | Sequence[int]


class Graph:
    """A graph in the making.

    Attributes:
        dtype: of its arithmetic.
    """

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._tape = ir.tape.Tape()
        self._inputs: dict[str, ir.Value] = {}

    def input(self, name: str, shape: Sequence[int | str], dtype: npt.DTypeLike) -> ir.Value:
        """Declare an input, or find it again by its name."""
        if name not in self._inputs:
            element = ir.DataType.from_numpy(np.dtype(dtype))
            self._inputs[name] = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(element))
        return self._inputs[name]

    def constant(self, array: np.ndarray) -> ir.Value:
        """Put an array into the graph."""
        return self._tape.initializer(ir.tensor(array, name=f"constant_{len(self._tape.initializers)}"))

    def op(self, kind: str, operands: Sequence[ir.Value], **attributes: Attribute) -> ir.Value:
        """Add a node of one output."""
        return self._tape.op(kind, operands, attributes)

    def op_pair(self, kind: str, operands: Sequence[ir.Value], **attributes: Attribute) -> Sequence[ir.Value]:
        """Add a node of two outputs."""
        return self._tape.op_multi_out(kind, operands, attributes, num_outputs=2)

    def build(self, outputs: Mapping[str, ir.Value]) -> bytes:
        """Serialise the model with these outputs, by name; inputs that nothing uses are left out."""
        results = []
        for name, value in outputs.items():
            result = self.op("Identity", [value])
            result.name = name
            results.append(result)
        graph = ir.Graph(
            [value for value in self._inputs.values() if value.uses()],
            results,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET},
            name="pooling",
        )
        model: bytes = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
        return model

"""What a tile's value lacks of the whole image's: functions of reduced values, followed along the graph in float64.

A head that is careful with its numbers takes a maximum or a mean off the features before it sums them. A tile can only
take its own. Two forms say how a tile's value v_t and the whole image's v are related, with o and ℓ functions of values
that were reduced over the tile (o_t, ℓ_t) or over the image (o, ℓ):

    Shifted     v = v_t + o_t − o               # x − max(x):  o = max(x)
    Scaled      v = v_t · e^(ℓ_t − ℓ) · Π k     # e^(x − max(x)):  ℓ = max(x);  (x / max(x))^p:  ℓ = p·log max(x)

The factors k are reduced values that the tile leaves out altogether, such as 1 / Σ e^(x − max(x)) of a softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graphs.anysize.writer import Writer

Operand = str | float | tuple[int, ...] | None


@dataclass(frozen=True)
class Scale:
    """A function of one reduced value, as a graph of float64.

    Attributes:
        base: the reduced value's name.
        steps: operators in turn, each with the name of a constant, a number, axes (or a permutation), or nothing.
    """

    base: str
    steps: tuple[tuple[str, Operand], ...] = ()

    def then(self, op_type: str, operand: Operand = None) -> Scale:
        """Give this function with one more operator after it."""
        return Scale(self.base, (*self.steps, (op_type, operand)))

    def emit(self, writer: Writer, values: Mapping[str, ir.Value]) -> ir.Value:
        """Write the function into a graph.

        Args:
            writer: of the graph.
            values: of the graph, by name.
        """

        def double(operand: str | float) -> ir.Value:
            if isinstance(operand, str):
                return writer.op("Cast", [values[operand]], to=int(ir.DataType.DOUBLE))
            return writer.constant(np.array(operand, np.float64))

        current = double(self.base)
        for op_type, operand in self.steps:
            if op_type == "Transpose":
                assert isinstance(operand, tuple)
                current = writer.op(op_type, [current], perm=operand)
            elif isinstance(operand, tuple):
                current = writer.along(op_type, current, operand)
            elif operand is None:
                current = writer.op(op_type, [current])
            else:
                current = writer.op(op_type, [current, double(operand)])
        return current


@dataclass(frozen=True)
class Shifted:
    """A value over space from which a reduced value was taken.

    Attributes:
        offset: o.
        root: name of the value over space that was shifted, as long as nothing but its layout changed since.
    """

    offset: Scale
    root: str | None

    def reshaped(self, op_type: str, operand: Operand) -> Shifted:
        """Follow a change of layout."""
        return replace(self, offset=self.offset.then(op_type, operand))

    def times(self, op_type: str, operand: str | float) -> Shifted:
        """Follow a multiplication with, or division by, a constant."""
        return Shifted(self.offset.then(op_type, operand), None)


@dataclass(frozen=True)
class Scaled:
    """A value over space that depends on reduced values by a factor only; without any, one that does not depend on them.

    Attributes:
        logs: the terms of ℓ.
        factors: k, each with how it is applied, `Mul` or `Div`.
    """

    logs: tuple[Scale, ...] = ()
    factors: tuple[tuple[str, Scale], ...] = ()

    def reshaped(self, op_type: str, operand: Operand) -> Scaled:
        """Follow a change of layout."""
        return Scaled(
            tuple(log.then(op_type, operand) for log in self.logs),
            tuple((how, factor.then(op_type, operand)) for how, factor in self.factors),
        )

    def power(self, exponent: str | float) -> Scaled:
        """Follow a power; factors must be gone."""
        return Scaled(tuple(log.then("Mul", exponent) for log in self.logs))

    def __mul__(self, other: Scaled) -> Scaled:
        return Scaled(self.logs + other.logs, self.factors + other.factors)

    def inverse(self) -> Scaled:
        """Give the form of 1 / v."""
        other = {"Mul": "Div", "Div": "Mul"}
        return Scaled(tuple(log.then("Neg") for log in self.logs), tuple((other[how], k) for how, k in self.factors))


@dataclass(frozen=True)
class Squares:
    """(x − mean(x))², element by element.

    Attributes:
        centre: the mean.
    """

    centre: Scale

    def reshaped(self, op_type: str, operand: Operand) -> Squares:
        """Follow a change of layout."""
        return Squares(self.centre.then(op_type, operand))


FREE = Scaled()
"""A value over space that depends on no reduction."""


def write_sum(scales: tuple[Scale, ...], writer: Writer, values: Mapping[str, ir.Value]) -> ir.Value:
    """Write a sum of functions of reduced values, float64."""
    total = scales[0].emit(writer, values)
    for scale in scales[1:]:
        total = writer.op("Add", [total, scale.emit(writer, values)])
    return total

"""A node as the rules of the analysis see it: what is known of its inputs, and its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphs.anysize.domains import Axes, Cells, Domain, Fixed, Numbers, Tensor, Unknown, cells_of


@dataclass(frozen=True)
class View:
    """One node in the middle of an analysis.

    Attributes:
        node: the node.
        domain: what is known so far.
        opset: of ONNX's own operators.
    """

    node: ir.Node
    domain: Mapping[ir.Value, Domain]
    opset: int

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def value(self, index: int) -> ir.Value:
        """Give an input.

        Raises:
            Unknown: it is not there.
        """
        value = self.node.inputs[index] if self.has(index) else None
        if value is None:
            raise Unknown(f"it has no input {index}")
        return value

    def of(self, index: int) -> Domain:
        """What is known of an input."""
        return self.domain[self.value(index)]

    def axes(self, index: int = 0) -> Axes:
        """Axes of an input.

        Raises:
            Unknown: they are not known.
        """
        domain = self.of(index)
        if isinstance(domain, Numbers):
            if domain.sized:
                raise Unknown("the size of the map flows into it as a number")
            return tuple(Fixed(size) for size in domain.entries.shape)
        if not isinstance(domain, Tensor) or domain.axes is None:
            raise Unknown("the axes of its input are not known")
        return domain.axes

    def array(self, index: int) -> np.ndarray:
        """Value of a constant input.

        Raises:
            Unknown: it is computed at run time.
        """
        value = self.value(index)
        if value.const_value is None:
            domain = self.domain[value]
            if isinstance(domain, Numbers) and all(isinstance(entry, int | float) for entry in domain.entries.flat):
                return np.array(domain.entries.tolist())
            raise Unknown(f"its input {value.name!r} is computed at run time")
        return value.const_value.numpy()

    def numbers(self, index: int) -> np.ndarray:
        """Entries of an input that is a constant or computed from shapes: object array of numbers and expressions.

        Raises:
            Unknown: it is neither.
        """
        domain = self.of(index)
        if isinstance(domain, Numbers):
            return domain.entries
        array = self.array(index)
        entries = np.empty(array.shape, object)
        entries[...] = array.tolist()
        return entries

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        return int(self.node.attributes.get_int(name, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute that may be left out."""
        found = self.node.attributes.get_ints(name, None)
        return None if found is None else tuple(found)

    def text(self, name: str, default: str) -> str:
        """An attribute."""
        return str(self.node.attributes.get_string(name, default))

    def listed(self, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that are an attribute in older opsets and a constant input in newer ones; None where left out.

        Raises:
            Unknown: computed at run time.
        """
        if self.has(index):
            return tuple(int(number) for number in self.array(index).ravel())
        return self.integers(name)

    def known_cells(self) -> list[Cells]:
        """Every axis of cells that the analysis has seen."""
        found: dict[Cells, None] = {}
        for domain in self.domain.values():
            if isinstance(domain, Tensor) and domain.axes is not None:
                found.update((cells, None) for axis in domain.axes for cells in cells_of(axis))
        return list(found)


def place(axis: int, rank: int) -> int:
    """Count an axis from the front.

    Raises:
        Unknown: it is not there.
    """
    if not -rank <= axis < rank:
        raise Unknown(f"axis {axis} of a value with {rank}")
    return axis % rank

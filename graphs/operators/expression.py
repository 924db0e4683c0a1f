"""Tensor expressions: formulas written with Python's operators, kept as an ONNX graph that can be differentiated.

A statistic is written once, forwards; `gradient.gradient` gives its derivative as another expression over the same graph, so both
run wherever ONNX runs. What is here is what the catalogue needs of ONNX (all of it with CPU and CUDA kernels in float32 and
float64), not all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Union

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphs.operators.graph import Attribute, Graph

Vjp = Callable[["Tensor"], "Tensor"]
"""Vector-Jacobian product: from the gradient of a result to that of one operand."""

Operand = Union["Tensor", float]


def constant(graph: Graph, value: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Tensor:
    """Put an array or a number into the graph, by default in the dtype of its arithmetic."""
    array = np.asarray(value, np.dtype(dtype or graph.dtype))
    return Tensor(graph, graph.constant(array), tuple(axis == 1 for axis in array.shape))


def placeholder(graph: Graph, name: str, shape: Sequence[int | str], dtype: npt.DTypeLike | None = None) -> Tensor:
    """Declare an input of the graph, or find it again by its name; an axis of length 1 must be given as 1."""
    return Tensor(graph, graph.input(name, shape, dtype or graph.dtype), tuple(axis == 1 for axis in shape))


class Tensor:
    """One value of a graph. `+ - * / **`, comparisons and the methods below write nodes and remember how to differentiate them.

    Operands of one operation have the same rank, or do not depend on what is differentiated by; axes of length 1 broadcast.

    Attributes:
        graph: that it belongs to.
        value: in the graph.
        thin: for each axis, whether its length is 1 by construction, so that it broadcasts.
        parents: what it was made of and depends on, with the way back to each.
        moving: whether it depends on a tensor that a gradient is taken by.
    """

    __slots__ = ("graph", "moving", "parents", "thin", "value")

    moving: bool

    def __init__(
        self,
        graph: Graph,
        value: ir.Value,
        thin: tuple[bool, ...],
        parents: Sequence[tuple[Tensor, Vjp]] = (),
    ) -> None:
        self.graph, self.value, self.thin = graph, value, thin
        self.parents = [(parent, vjp) for parent, vjp in parents if parent.moving]
        self.moving = bool(self.parents)

    def __hash__(self) -> int:
        return id(self)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.thin)

    def _operand(self, other: Operand) -> Tensor:
        return other if isinstance(other, Tensor) else constant(self.graph, other)

    def _make(
        self, kind: str, *others: Tensor, parents: Sequence[tuple[Tensor, Vjp]] = (), **attributes: Attribute
    ) -> Tensor:
        return emit(kind, (self, *others), None, parents, **attributes)

    # Arithmetic

    def __add__(self, other: Operand) -> Tensor:
        b = self._operand(other)
        return self._make("Add", b, parents=[(self, lambda g: g.fit(self)), (b, lambda g: g.fit(b))])

    def __sub__(self, other: Operand) -> Tensor:
        b = self._operand(other)
        return self._make("Sub", b, parents=[(self, lambda g: g.fit(self)), (b, lambda g: (-g).fit(b))])

    def __mul__(self, other: Operand) -> Tensor:
        b = self._operand(other)
        return self._make("Mul", b, parents=[(self, lambda g: (g * b).fit(self)), (b, lambda g: (g * self).fit(b))])

    def __truediv__(self, other: Operand) -> Tensor:
        b = self._operand(other)
        y = self._make("Div", b, parents=[(self, lambda g: (g / b).fit(self)), (b, lambda g: (-(g * y) / b).fit(b))])
        return y

    def __pow__(self, exponent: Operand) -> Tensor:
        """x^p for x ≥ 0; differentiated by x only. 0^p with p < 1 has the derivative 0 here, a subgradient, in place of ∞."""
        p = self._operand(exponent)

        def vjp(g: Tensor) -> Tensor:
            slope = p * self._make("Pow", p - 1.0)
            return (g * where(self.equal(0.0) & p.less(1.0), 0.0, slope)).fit(self)

        return self._make("Pow", p, parents=[(self, vjp)])

    def __neg__(self) -> Tensor:
        return self._make("Neg", parents=[(self, lambda g: -g)])

    def __radd__(self, other: float) -> Tensor:
        return self + other

    def __rmul__(self, other: float) -> Tensor:
        return self * other

    def __rsub__(self, other: float) -> Tensor:
        return self._operand(other) - self

    def __rtruediv__(self, other: float) -> Tensor:
        return self._operand(other) / self

    # Functions of one value

    def exp(self) -> Tensor:
        """e^x."""
        y = self._make("Exp", parents=[(self, lambda g: g * y)])
        return y

    def log(self) -> Tensor:
        """The natural logarithm."""
        return self._make("Log", parents=[(self, lambda g: g / self)])

    def sqrt(self) -> Tensor:
        """√x; its derivative at 0 is 0 here, a subgradient."""
        y = self._make("Sqrt", parents=[(self, lambda g: where(y.equal(0.0), 0.0, g / (2.0 * y)))])
        return y

    def abs(self) -> Tensor:
        """|x|; its derivative at 0 is 0."""
        return self._make("Abs", parents=[(self, lambda g: g * self.sign())])

    def sign(self) -> Tensor:
        """−1, 0 or 1; a constant to gradients."""
        return self._make("Sign")

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        y = self._make("Tanh", parents=[(self, lambda g: g * (1.0 - y * y))])
        return y

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^−x)."""
        y = self._make("Sigmoid", parents=[(self, lambda g: g * y * (1.0 - y))])
        return y

    def at_least(self, low: Operand) -> Tensor:
        """max(x, low), elementwise; the gradient passes where x > low (as PyTorch's clamp but for x = low)."""
        bound = self._operand(low)
        return where(self.greater(bound), self, bound)

    def detach(self) -> Tensor:
        """The same value, a constant to gradients."""
        return Tensor(self.graph, self.value, self.thin)

    def cast(self, dtype: npt.DTypeLike) -> Tensor:
        """The same numbers in another dtype; a constant to gradients."""
        return self._make("Cast", to=int(ir.DataType.from_numpy(np.dtype(dtype))))

    # Truth values

    def greater(self, other: Operand) -> Tensor:
        """Whether x > other."""
        return self.detach()._make("Greater", self._operand(other).detach())

    def less(self, other: Operand) -> Tensor:
        """Whether x < other."""
        return self.detach()._make("Less", self._operand(other).detach())

    def equal(self, other: Operand) -> Tensor:
        """Whether x = other."""
        return self.detach()._make("Equal", self._operand(other).detach())

    def is_nan(self) -> Tensor:
        """Whether x is no number."""
        return self.detach()._make("IsNaN")

    def __and__(self, other: Tensor) -> Tensor:
        return self._make("And", other)

    def __or__(self, other: Tensor) -> Tensor:
        return self._make("Or", other)

    def __invert__(self) -> Tensor:
        return self._make("Not")

    # Along an axis, which stays with length 1

    def sum(self, axis: int = -1) -> Tensor:
        """Σ along an axis, kept."""
        return self._reduce("ReduceSum", axis, lambda g: g * self.ones_like())

    def max(self, axis: int = -1) -> Tensor:
        """The maximum along an axis, kept; the gradient goes to the first of equals, as in PyTorch's max_pool."""
        return self._reduce("ReduceMax", axis, lambda g: where(self.first_maximum(axis), g, 0.0))

    def min(self, axis: int = -1) -> Tensor:
        """The minimum along an axis, kept; the gradient goes to the first of equals."""
        return self._reduce("ReduceMin", axis, lambda g: where((-self.detach()).first_maximum(axis), g, 0.0))

    def first_maximum(self, axis: int = -1) -> Tensor:
        """True at the first maximum along an axis, false elsewhere."""
        first = self.argmax(axis)
        return self.positions(axis)._make("Equal", first)

    def argmax(self, axis: int = -1) -> Tensor:
        """The position of the first maximum along an axis, kept: int64."""
        return self._reduce("ArgMax", axis, None)

    def positions(self, axis: int = -1) -> Tensor:
        """0, 1, 2 … along an axis, the other axes thin: int64."""
        place = axis % self.rank
        count = self.length(axis)
        zero, one = constant(self.graph, 0, np.int64), constant(self.graph, 1, np.int64)
        numbers = emit("Range", (zero, count, one), (False,))
        shape = [1] * self.rank
        shape[place] = -1
        return numbers.reshape(shape)

    def length(self, axis: int = -1) -> Tensor:
        """The number of elements along an axis: a scalar, int64."""
        return emit("Gather", (self.shape(), constant(self.graph, axis % self.rank, np.int64)), (), axis=0)

    def ones_like(self) -> Tensor:
        """Ones of this shape."""
        return emit("Expand", (constant(self.graph, 1.0), self.shape()), self.thin)

    def shape(self) -> Tensor:
        """The lengths of the axes: (rank,), int64."""
        return emit("Shape", (self,), (False,))

    def _reduce(self, kind: str, axis: int, vjp: Vjp | None) -> Tensor:
        place = axis % self.rank
        thin = tuple(old or number == place for number, old in enumerate(self.thin))
        parents = [(self, vjp)] if vjp else []
        if kind == "ArgMax":
            return emit(kind, (self,), thin, axis=place, keepdims=1)
        if self.graph.dtype == np.int64 and kind != "ReduceSum":  # ORT 1.31's ReduceMax compares 32 bits in places
            one = constant(self.graph, [1], np.int64).value
            y, _ = self.graph.op_pair("TopK", [self.value, one], axis=place, largest=int(kind == "ReduceMax"), sorted=1)
            return Tensor(self.graph, y, thin, parents)
        return emit(kind, (self, constant(self.graph, [place], np.int64)), thin, parents, keepdims=1)

    # Shape

    def fit(self, like: Tensor) -> Tensor:
        """Undo a broadcast: sum over the axes along which `like` was repeated."""
        result = self
        for axis, (wide, thin) in enumerate(zip(self.thin, like.thin, strict=True)):
            if thin and not wide:
                result = result.sum(axis)
        return result

    def reshape(self, shape: Sequence[int], thin: Sequence[bool] | None = None) -> Tensor:
        """Another shape; −1 is inferred, 0 copied. `thin` says which of its axes are of length 1 where 1 does not stand there."""

        def vjp(g: Tensor) -> Tensor:
            return emit("Reshape", (g, self.shape()), self.thin)

        marks = tuple(thin or (axis == 1 for axis in shape))
        return emit("Reshape", (self, constant(self.graph, shape, np.int64)), marks, [(self, vjp)])


def emit(
    kind: str,
    operands: Sequence[Tensor],
    thin: tuple[bool, ...] | None = None,
    parents: Sequence[tuple[Tensor, Vjp]] = (),
    **attributes: Attribute,
) -> Tensor:
    """Add a node of one output; `thin` by broadcasting its operands, unless given."""
    value = operands[0].graph.op(kind, [operand.value for operand in operands], **attributes)
    return Tensor(operands[0].graph, value, _broadcast(operands) if thin is None else thin, parents)


def where(condition: Tensor, yes: Operand, no: Operand) -> Tensor:
    """`yes` where the condition holds, else `no`; elementwise, broadcasting."""
    a, b = (side if isinstance(side, Tensor) else constant(condition.graph, side) for side in (yes, no))
    parents: list[tuple[Tensor, Vjp]] = [
        (a, lambda g: where(condition, g, 0.0).fit(a)),
        (b, lambda g: where(condition, 0.0, g).fit(b)),
    ]
    return emit("Where", (condition, a, b), parents=parents)


def _broadcast(operands: Sequence[Tensor]) -> tuple[bool, ...]:
    backwards = zip_longest(*(operand.thin[::-1] for operand in operands), fillvalue=True)
    return tuple(all(axis) for axis in backwards)[::-1]

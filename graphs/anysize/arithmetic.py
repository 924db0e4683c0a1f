"""What reduced values may do to values over space, so that tiles still merge; anything else is an obstacle.

x − r, r − x, x + r            Shifted;  e^x of it: Scaled
x / max|x|                     Scaled;   powers of it too
x · r, x / r                   Scaled, by a factor that the tile leaves out
(x − mean(x))²                 Squares
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from graphs.anysize.facts import constant_axes, name_of, scalar
from graphs.anysize.found import Form, Found, Partly, Stop
from graphs.anysize.scales import FREE, Scaled, Shifted, Squares

FOLLOWED = Scaled | Shifted | Squares | Partly


def change_layout(found: Found, node: ir.Node, form: Form) -> Form:
    """Follow a value over space through a node of LAYOUT.

    Raises:
        Stop: it cannot be followed.
    """
    if not isinstance(form, FOLLOWED):
        raise found.reentry(node)
    if node.op_type in {"Identity", "Cast"}:
        return form
    if node.op_type in {"Unsqueeze", "Squeeze"}:
        return _change_axes(found, node, form)
    if isinstance(form, Partly):
        raise Stop("changes the layout between two axes of a reduction")
    before, after = found.letters(node.inputs[0]), found.letters(node.outputs[0])
    if node.op_type == "Transpose":
        return form.reshaped("Transpose", tuple(node.attributes["perm"].as_ints()))
    if "".join(before) == "yx" and "".join(after) == "p" and len(after) == len(before) - 1:
        return form.reshaped("Squeeze", (before.index("x"),))
    raise found.reentry(node)


def _change_axes(found: Found, node: ir.Node, form: FOLLOWED) -> Form:
    axes = constant_axes(node)
    if axes is None:
        raise Stop("takes axes that are not constant")
    letters = list(form.letters if isinstance(form, Partly) else found.letters(node.inputs[0]))
    adds = node.op_type == "Unsqueeze"
    axes = tuple(sorted(axis % (len(letters) + len(axes) * adds) for axis in axes))
    if isinstance(form, Partly):
        for axis in axes if adds else reversed(axes):
            if adds:
                letters.insert(axis, "")
            else:
                letters.pop(axis)
        form = replace(form, letters=tuple(letters))
    return form.reshaped(node.op_type, axes)


def combine(found: Found, node: ir.Node, forms: list[Form]) -> Form:
    """Follow a pointwise node that at least one input enters which depends on a reduction.

    Raises:
        Stop: a tile cannot do without the whole image's reduction.
    """
    if len(forms) == 1 or (node.op_type == "Pow" and len(forms) == 2 and forms[1] == "constant"):
        return _function(found, node, forms[0])
    if all(isinstance(form, Scaled) for form in forms if form != "extent"):
        forms = ["constant" if form == "extent" else form for form in forms]
    if len(forms) == 2 and node.op_type in {"Add", "Sub"}:
        return _shift(found, node, forms[0], forms[1])
    if len(forms) == 2 and node.op_type in {"Mul", "Div"}:
        return _scale(found, node, forms[0], forms[1])
    raise found.reentry(node)


def _function(found: Found, node: ir.Node, form: Form) -> Form:
    op_type = node.op_type
    if isinstance(form, Shifted):
        if op_type == "Exp":
            return Scaled((form.offset,))
        if op_type == "Neg":
            return Shifted(form.offset.then("Neg"), None)
        if op_type == "Pow" and found.mean_of(form, node.inputs[0]) and scalar(node.inputs[1]) == 2:
            return Squares(form.offset)
    if isinstance(form, Scaled) and not form.factors:
        if op_type in {"Neg", "Abs", "Relu"}:  # e^ℓ > 0
            return form
        if op_type == "Sqrt":
            return form.power(0.5)
        if op_type == "Pow":
            return form.power(name_of(node.inputs[1]))
    raise found.reentry(node)


def _shift(found: Found, node: ir.Node, left: Form, right: Form) -> Form:
    subtracts = node.op_type == "Sub"
    if left == FREE and right == "reduced":  # x − r: o = r;  x + r: o = −r
        found.shifts.append((name_of(node.outputs[0]), 1))
        offset = found.scale_of(node, 1)
        return Shifted(offset, name_of(node.inputs[0])) if subtracts else Shifted(offset.then("Neg"), None)
    if left == "reduced" and right == FREE:  # r ± x: o = −r
        found.shifts.append((name_of(node.outputs[0]), 0))
        return Shifted(found.scale_of(node, 0).then("Neg"), None)
    if isinstance(left, Shifted) and right in ("constant", FREE):
        return Shifted(left.offset, None)
    if isinstance(right, Shifted) and left in ("constant", FREE):
        return Shifted(right.offset.then("Neg") if subtracts else right.offset, None)
    raise found.reentry(node)


def _scale(found: Found, node: ir.Node, left: Form, right: Form) -> Form:  # noqa: PLR0911  # one line a case
    op_type, inputs = node.op_type, node.inputs
    if isinstance(left, Shifted) and isinstance(right, Shifted):
        if op_type == "Mul" and inputs[0] is inputs[1] and found.mean_of(left, inputs[0]):
            return Squares(left.offset)
    elif isinstance(left, Shifted) and right == "constant":
        return left.times(op_type, name_of(inputs[1]))
    elif isinstance(right, Shifted) and left == "constant" and op_type == "Mul":
        return right.times(op_type, name_of(inputs[0]))
    elif isinstance(left, Scaled) and right == "constant":
        return left
    elif isinstance(right, Scaled) and left == "constant":
        return right if op_type == "Mul" else right.inverse()
    elif isinstance(left, Scaled) and isinstance(right, Scaled):
        return left * (right if op_type == "Mul" else right.inverse())
    elif isinstance(left, Scaled) and right == "reduced":
        return left * _by(found, node, 1)
    elif isinstance(right, Scaled) and left == "reduced" and op_type == "Mul":
        return right * _by(found, node, 0)
    raise found.reentry(node)


def _by(found: Found, node: ir.Node, index: int) -> Scaled:
    """Multiply or divide values over space by a reduced value."""
    scale = found.scale_of(node, index)
    value = node.inputs[index]
    assert value is not None
    if node.op_type == "Div" and found.is_maximum_of_magnitudes(value):
        found.divisors.append((name_of(node.outputs[0]), index))
        return Scaled((scale.then("Log"),))
    found.dropped[name_of(node.outputs[0])] = 1 - index
    return Scaled((), ((node.op_type, scale),))

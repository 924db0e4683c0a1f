"""Puts a number where a canvas is not the image's: Where, never a product, for what lies there may be infinite or NaN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import onnx_ir as ir

from graphs.anysize.analysis import Analysis
from graphs.anysize.domains import Axes, cells_of
from graphs.anysize.masks import Masks
from graphs.anysize.sizes import Level

Filling = Literal["zero", "one", "lowest", "highest"]


class Fill:
    """Filled values, each written once.

    Attributes:
        analysis: of the graph as it was.
        masks: of the graph.
        full: levels that were taken to have no cell outside the image.
    """

    def __init__(self, analysis: Analysis, masks: Masks, coarse: int | None = None) -> None:
        """Begin.

        Args:
            analysis: of the graph as it was.
            masks: of the graph.
            coarse: stride in pixels from which on canvases hold no more cells than each of their images; None: on no level.
        """
        self.analysis = analysis
        self.masks = masks
        self.full: set[Level] = set()
        self._coarse = coarse
        self._instead: dict[ir.Value, ir.Value] = {}
        self._filled: dict[tuple[ir.Value, tuple[int, ...], Filling | ir.Value], ir.Value] = {}

    def is_full(self, axes: Axes, chosen: Iterable[int]) -> bool:
        """Say whether nothing is outside along the chosen axes, and remember that this was relied upon.

        Args:
            axes: of a value.
            chosen: some of them, counted from the front.
        """
        levels = {cells.level for index in chosen for cells in cells_of(axes[index])}
        if self._coarse is None or any(level.stride < self._coarse or level.window is not None for level in levels):
            return False
        self.full |= levels
        return True

    def replace(self, old: ir.Value, new: ir.Value, users: Iterable[tuple[ir.Node, int]]) -> None:
        """Put a value in the place of another one, for these users and for whatever is filled from now on.

        Args:
            old: a value that the analysis knows.
            new: what it should have been; takes over what is known of the old one, and its name if it is an output.
            users: (node, index of its input).
        """
        new.type, new.shape = old.type, old.shape
        self.analysis.domain[new] = self.analysis.domain[old]
        self._instead[old] = new
        for node, index in users:
            node.replace_input_with(index, new)
        if old.is_graph_output():
            old.name, new.name = f"{old.name}/canvas", old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)

    def __call__(self, value: ir.Value, chosen: tuple[int, ...], filling: Filling | ir.Value) -> ir.Value:
        """Give a value filled where it is outside along the chosen axes.

        Args:
            value: with axes that the analysis knows.
            chosen: its axes, counted from the front; those without cells are left out.
            filling: what to put there, or a constant scalar of the graph.
        """
        value = self._instead.get(value, value)
        axes = self.analysis.axes(value)
        assert axes is not None
        chosen = tuple(index for index in chosen if cells_of(axes[index]))
        key = (value, chosen, filling)
        if key not in self._filled:
            writer = self.masks.writer
            number = filling if isinstance(filling, ir.Value) else writer.constant(_number(filling, value.dtype))
            operands = [self.masks.mask(axes, chosen), value, number]
            filled = writer.op("Where", operands, after=value.producer())
            if value.dtype is not None:
                filled.dtype = value.dtype
            self._filled[key] = filled
        return self._filled[key]


def _number(filling: Filling, dtype: ir.DataType | None) -> np.ndarray:
    kind = (dtype or ir.DataType.FLOAT).numpy()
    if filling in {"zero", "one"}:
        return np.array(int(filling == "one"), kind)
    if kind == np.bool_:
        return np.array(filling == "highest", kind)
    limits = np.finfo(kind) if np.issubdtype(kind, np.floating) else np.iinfo(kind)
    return np.array(limits.min if filling == "lowest" else limits.max, kind)

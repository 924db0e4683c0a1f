"""A plain CNN and its card in, a plan out: how images of any size are batched and cut into tiles, exactly, and why not."""

from __future__ import annotations

from functools import partial

import onnx_ir as ir

from graphs.anysize.analysis import Analysis, analyse, pixel_axes
from graphs.anysize.domains import Axes
from graphs.anysize.fold import fold_constants
from graphs.anysize.geometry import geometry
from graphs.anysize.plan import Obstacle, Plan, TiledPlan
from graphs.anysize.ragged import make_ragged
from graphs.anysize.split import split
from graphs.card import ModelCard
from graphs.front import PIXELS, Geometry, attach_front

OLDEST_OPSET = 11
"""Range and the int64 comparisons of the masks are there from then on."""


def compile_plan(model: ir.Model, card: ModelCard) -> Plan:
    """Compile a model.

    Args:
        model: any ONNX network with one image input; it is not changed, its weights are shared.
        card: its preprocessing, and the names of input and output.

    Returns:
        The plan. A network that the compiler does not know is no error: its plan says what stood in the way.

    Raises:
        FrontError: card and graph do not fit each other, as `attach_front` has it.
    """
    plain = model.clone()
    fixed = attach_front(plain, card)
    folded = plain.clone()
    fold_constants(folded)
    (image,) = [value for value in folded.graph.inputs if value.name == PIXELS]
    axes = pixel_axes(card.preprocessing.channel_count)
    analysis = analyse(folded.graph, {image: axes})
    obstacles = (*_outside(folded, fixed), *analysis.obstacles, *_maps(folded.graph, analysis))
    if obstacles:
        return Plan(plain=plain, ragged=None, geometry=None, ragged_obstacles=obstacles, cut=lambda: obstacles)
    its_geometry = geometry(analysis)
    make_ragged(folded, analysis, image)
    return Plan(plain=plain, ragged=folded, geometry=its_geometry, ragged_obstacles=(), cut=partial(_cut, plain, axes))


def _cut(plain: ir.Model, axes: Axes) -> TiledPlan | tuple[Obstacle, ...]:
    """Cut a plan's plain graph in two; it is not changed."""
    folded = plain.clone()
    fold_constants(folded)
    return split(folded, axes)


def _outside(model: ir.Model, fixed: Geometry) -> list[Obstacle]:
    """What is in the way before any node is looked at."""
    found = []
    opset = model.graph.opset_imports.get("", 0)
    if opset < OLDEST_OPSET:
        found.append(
            Obstacle(PIXELS, "Input", f"the graph is of opset {opset}; {OLDEST_OPSET} and later can be compiled")
        )
    for name, size in (("height", fixed.height), ("width", fixed.width), ("batch", fixed.batch)):
        if size is not None:
            found.append(Obstacle(PIXELS, "Input", f"the graph takes a {name} of {size} only"))
    return found


def _maps(graph: ir.Graph, analysis: Analysis) -> list[Obstacle]:
    """Outputs that have positions: one image's would be of another size than the next one's."""
    found = []
    for value in graph.outputs:
        node = value.producer()
        name, op_type = ("", "Output") if node is None else (node.name or "", node.op_type)
        if analysis.spatial(value):
            found.append(Obstacle(name, op_type, f"the output {value.name!r} is a map, of another size for each image"))
    return found

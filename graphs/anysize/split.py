"""Cuts a graph at its last reductions over space into a trunk that runs on tiles and a head that runs once an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.anysize.analysis import Analysis, analyse
from graphs.anysize.decompose import decompose_reductions
from graphs.anysize.domains import Axes, Batch, Fixed, Numbers
from graphs.anysize.facts import name_of
from graphs.anysize.fill import Fill
from graphs.anysize.found import Found
from graphs.anysize.head import cut_head
from graphs.anysize.masks import Masks
from graphs.anysize.neighbours import fill_neighbours
from graphs.anysize.ownership import Ownership
from graphs.anysize.partials import find_partials
from graphs.anysize.plan import EXTENTS, OWNED, Obstacle, TiledPlan
from graphs.anysize.scalars import own_sizes
from graphs.anysize.sizes import is_sized
from graphs.anysize.states import State
from graphs.anysize.trunk import cut_trunk
from graphs.anysize.writer import Writer
from graphs.front import PIXELS, make_room


def split(model: ir.Model, axes: Axes) -> TiledPlan | tuple[Obstacle, ...]:
    """Cut a model at its last reductions.

    Args:
        model: PIXELS in, constants folded into initializers; not changed.
        axes: of PIXELS.

    Returns:
        The two parts; or what stands against them.
    """
    simple = model.clone()
    for name in (EXTENTS, OWNED):
        make_room(simple.graph, name)
    first = _analyse(simple, axes)
    if first.obstacles:
        return tuple(first.obstacles)
    decompose_reductions(simple.graph, _axes(first))
    analysis = _analyse(simple, axes)
    reducing = {name_of(reduction.node.outputs[0]) for reduction in analysis.reductions}
    found = find_partials(simple.graph, _axes(analysis), reducing)
    obstacles = (*analysis.obstacles, *found.obstacles, *_sized_shapes(simple.graph, analysis))
    if obstacles:
        return obstacles
    trunk, states = _trunk(simple.clone(), axes, found)
    return TiledPlan(trunk, _head(simple.clone(), axes, found, states, trunk.graph.outputs), states)


def _trunk(model: ir.Model, axes: Axes, found: Found) -> tuple[ir.Model, tuple[State, ...]]:
    analysis, pixels, extents = _analyse(model, axes), _input(model, PIXELS), _add_extents(model)
    masks = Masks(Writer(model.graph), pixels, extents, axes)
    fill_neighbours(model.graph, Fill(analysis, masks))
    own_sizes(analysis, masks)
    found = replace(found, axes=_axes(analysis))  # of averages too, which are values of their own by now
    owned = ir.val(OWNED, ir.DataType.INT64, ir.Shape([_count(pixels), 4]))
    model.graph.inputs.append(owned)
    states = cut_trunk(model.graph, found, Ownership(Writer(model.graph, "tiled"), pixels, axes, extents, owned))
    RemoveUnusedNodesPass()(model)
    model.metadata_props.clear()
    return model, states


def _head(model: ir.Model, axes: Axes, found: Found, states: tuple[State, ...], arrays: Iterable[ir.Value]) -> ir.Model:
    analysis, extents = _analyse(model, axes), _add_extents(model)
    # One row of the extents an image: a head has no pixels to count images by.
    masks = Masks(Writer(model.graph), extents, extents, (Batch(), Fixed(4)))
    own_sizes(analysis, masks)
    _count_images(analysis, masks)
    inputs = [extents, *(ir.Value(name=array.name, shape=array.shape, type=array.type) for array in arrays)]
    cut_head(model.graph, found, states, inputs, masks)
    RemoveUnusedNodesPass()(model)
    model.metadata_props.clear()
    return model


def _analyse(model: ir.Model, axes: Axes) -> Analysis:
    return analyse(model.graph, {_input(model, PIXELS): axes})


def _count_images(analysis: Analysis, masks: Masks) -> None:
    """Take the number of images from the extents where a graph takes it from a map's shape, which a head does not have."""
    for value, domain in list(analysis.domain.items()):
        node = value.producer()
        if node is None or node.op_type != "Shape" or not isinstance(domain, Numbers):
            continue
        # What depends on height or width stands in no shape behind the reductions: _sized_shapes has seen to that.
        entries = [0 if is_sized(entry) else entry for entry in domain.entries.flat]
        parts = [masks.writer.op("Reshape", [masks.number(entry), masks.writer.integers(1)]) for entry in entries]
        value.replace_all_uses_with(masks.writer.op("Concat", parts, axis=0))


def _add_extents(model: ir.Model) -> ir.Value:
    extents = ir.val(EXTENTS, ir.DataType.INT64, ir.Shape([_count(_input(model, PIXELS)), 4]))
    model.graph.inputs.append(extents)
    return extents


def _count(pixels: ir.Value) -> int | ir.SymbolicDim | str:
    return "batch" if pixels.shape is None else pixels.shape[0]


def _input(model: ir.Model, name: str) -> ir.Value:
    return next(value for value in model.graph.inputs if value.name == name)


def _axes(analysis: Analysis) -> dict[str, Axes]:
    values = [value for value in analysis.domain if value.name]
    return {name_of(value): axes for value in values if (axes := analysis.axes(value)) is not None}


def _sized_shapes(graph: ir.Graph, analysis: Analysis) -> list[Obstacle]:
    """Find shapes behind the reductions that depend on the image's size: a head has no map to take them from."""
    found = []
    for node in graph:
        computes = isinstance(analysis.domain[node.outputs[0]], Numbers)
        if computes or any(analysis.spatial(value) for value in (*node.inputs, *node.outputs)):
            continue
        for index, value in enumerate(node.inputs):
            domain = None if value is None else analysis.domain[value]
            if isinstance(domain, Numbers) and domain.sized and (node, index) not in analysis.sized:
                found.append(Obstacle(node.name or "", node.op_type, "its result's shape depends on the image's size"))
    return found

"""Cuts a network at its features into a trunk (image in, features out) and a head (features in, the network's outputs out)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from graphs.anysize.analysis import Analysis, analyse, pixel_axes
from graphs.anysize.attention import weights_of_cells
from graphs.anysize.borrowed import borrow_shapes, sources
from graphs.anysize.domains import Axes, Cells
from graphs.anysize.facts import name_of
from graphs.anysize.features import FeaturesError, Place, find_features
from graphs.anysize.fold import fold_constants
from graphs.anysize.geometry import geometry
from graphs.anysize.plan import TrunkGeometry
from graphs.anysize.ragged import make_ragged
from graphs.anysize.writer import Writer
from graphs.card import ModelCard
from graphs.front import PIXELS, image_input

CLIP_TAKES_INPUTS = 11
"""Opset from which on a Clip's bounds are inputs."""

_PREFIX = "poolserve"

FEATURES = "poolserve/features"
"""Output of the trunk and input of the head, float32 (N,C,h,w)."""

WEIGHTS = "poolserve/weights"
"""Output of a head that pools by attention, beside the network's own: float32 (N,h·w), row by row, of sum 1."""


@dataclass(frozen=True)
class Cut:
    """A network in two.

    Attributes:
        trunk: the network's own input (PIXELS where the front is attached) in, FEATURES out.
        head: FEATURES in; those of the network's outputs out that come from the features alone, and WEIGHTS where `weighted`.
        value: name that the features have in the network.
        channels: C; None where it is not known.
        rows: cells along the height, and what of the image they see.
        columns: cells along the width.
        weighted: whether the head weighs each cell by attention.
    """

    trunk: ir.Model
    head: ir.Model
    value: str
    channels: int | None
    rows: Cells
    columns: Cells
    weighted: bool


def cut_features(plain: ir.Model, card: ModelCard) -> Cut:
    """Cut a network.

    Args:
        plain: with its front attached or without; not changed, its weights are shared.
        card: names the outputs that the features must lead to, and may name the features.

    Raises:
        FeaturesError: the features cannot be told from the head.
        FrontError: the network has no image input.
    """
    whole = plain.clone()
    fold_constants(whole)
    image = _image(whole, card)
    analysis = analyse(whole.graph, {image: _axes(image, card)})
    place = find_features(analysis, whole.graph, image, _wanted(whole, card), card.features)
    weights = weights_of_cells(analysis, whole.graph, (place.rows, place.columns))
    dtype = place.value.dtype or ir.DataType.FLOAT
    trunk = _trunk(whole.clone(), place, dtype)
    head = _head(whole.clone(), analysis, place, dtype, None if weights is None else name_of(weights))
    missing = [
        value.name for value in _wanted(whole, card) if value.name not in {out.name for out in head.graph.outputs}
    ]
    if missing:
        raise FeaturesError(f"the outputs {missing} need more of the image than the map {place.value.name!r}")
    return Cut(
        trunk, head, name_of(place.value), place.channels, place.rows, place.columns, weighted=weights is not None
    )


def trunk_of_tiles(trunk: ir.Model, card: ModelCard) -> tuple[ir.Model, TrunkGeometry]:
    """Make a trunk that takes tiles: PIXELS and EXTENTS in, FEATURES of each canvas out.

    What of them a tile owns (plan.OWNED), beyond the geometry's halo, is what the trunk gives for the whole image.

    Args:
        trunk: of a network with its front attached; not changed.
        card: the model's.

    Raises:
        FeaturesError: a tile does not have what is needed: a reduction over the whole image, an operator that is not known.
    """
    model = trunk.clone()
    image = _image(model, card)
    analysis = analyse(model.graph, {image: _axes(image, card)})
    reasons = [
        *map(str, analysis.obstacles),
        *(f"{one.node.op_type} {one.node.name!r} reduces" for one in analysis.reductions),
    ]
    if reasons or analysis.parts:
        raise FeaturesError(f"its features need the whole image: {'; '.join(reasons) or 'they are of a part of it'}")
    shape = geometry(analysis)
    make_ragged(model, analysis, image, origins=True)
    return model, shape


def _image(model: ir.Model, card: ModelCard) -> ir.Value:
    for value in model.graph.inputs:
        if value.name == PIXELS:
            return value
    return image_input(model, card)


def _axes(image: ir.Value, card: ModelCard) -> Axes:
    batch, rows, columns, channels = pixel_axes(card.preprocessing.channel_count)
    if image.name == PIXELS or card.preprocessing.layout == "NHWC":
        return batch, rows, columns, channels
    return batch, channels, rows, columns


def _wanted(model: ir.Model, card: ModelCard) -> list[ir.Value]:
    """The output that is classified, and the embedding."""
    outputs = {name_of(value): value for value in model.graph.outputs}
    classified = card.output or ("logits" if "logits" in outputs else next(iter(outputs)))
    names = [name for name in (classified, card.embedding) if name is not None]
    for name in names:
        if name not in outputs:
            raise FeaturesError(f"the card's output is {name!r}, the graph has {list(outputs)}")
    return [outputs[name] for name in names]


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    return {value.name: value for node in graph for value in node.outputs if value.name}


def _give(writer: Writer, value: ir.Value, name: str, shape: list[int | str | None]) -> None:
    """Make a value a float32 output of the graph."""
    output = writer.op("Cast", [value], to=int(ir.DataType.FLOAT))
    output.name, output.type, output.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    writer.graph.outputs.append(output)


def _trunk(model: ir.Model, place: Place, dtype: ir.DataType) -> ir.Model:
    writer = Writer(model.graph, _PREFIX)
    value = _values(model.graph)[name_of(place.value)]
    if place.ceiling is not None and math.isinf(place.ceiling):
        value = writer.op("Relu", [value])
    elif place.ceiling is not None and writer.opset < CLIP_TAKES_INPUTS:
        value = writer.op("Clip", [value], min=0.0, max=place.ceiling)
    elif place.ceiling is not None:
        bounds = [writer.constant(np.array(bound, dtype.numpy())) for bound in (0.0, place.ceiling)]
        value = writer.op("Clip", [value, *bounds])
    if place.channels_last:
        value = writer.op("Transpose", [value], perm=[0, 3, 1, 2])
    model.graph.outputs.clear()
    _give(writer, value, FEATURES, ["batch", place.channels, "rows", "columns"])
    return _finished(model)


def _head(model: ir.Model, analysis: Analysis, place: Place, dtype: ir.DataType, weights: str | None) -> ir.Model:
    graph, values = model.graph, _values(model.graph)
    writer = Writer(graph, _PREFIX)
    features = ir.Value(name=FEATURES, type=ir.TensorType(ir.DataType.FLOAT))
    features.shape = ir.Shape(["batch", place.channels, "rows", "columns"])
    current = writer.op("Cast", [features], to=int(dtype))
    if place.channels_last:
        current = writer.op("Transpose", [current], perm=[0, 2, 3, 1])
    current.dtype = dtype
    values[name_of(place.value)].replace_all_uses_with(current)
    if weights is not None:
        _give(writer, writer.op("Flatten", [values[weights]], axis=1), WEIGHTS, ["batch", "cells"])
    graph.inputs.append(features)
    borrow_shapes(writer, {name_of(value): known for value, known in analysis.domain.items()}, place, features)
    images = set(graph.inputs) - {features}
    kept = [output for output in graph.outputs if not images & set(sources([output]))]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    graph.inputs.clear()
    graph.inputs.append(features)
    graph.sort()
    return _finished(model)


def _finished(model: ir.Model) -> ir.Model:
    model.graph.sort()
    RemoveUnusedNodesPass()(model)
    for value in _values(model.graph).values():
        if not value.is_graph_output():
            value.shape = None  # what the file says of sizes may be of one size only
    model.metadata_props.clear()
    return model

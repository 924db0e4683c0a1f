"""A network whose every answer says which version of it answered, and requests by every road with what their answers must be."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks import load
from graphs.card import METADATA_KEY, ModelCard

NAME = "soak"
CLASSES = 64
CHANNELS = 8

_TINY, _SMALL = 8, 96
"""Sides in pixels of pictures: of what may run on the event loop, and of what goes to a thread."""


def network(version: int) -> bytes:
    """Make the ONNX file of a version: its features are the version's number everywhere, and so is the logit of its class.

    Weights are zeros, so that float32 gives these numbers exactly, whatever the picture.
    """
    bias = np.zeros(CLASSES, np.float32)
    bias[version % CLASSES] = version
    weights = {
        "kernel": np.zeros((CHANNELS, 3, 3, 3), np.float32),
        "feature": np.full(CHANNELS, version, np.float32),
        "axes": np.array([2, 3], np.int64),
        "gemm": np.zeros((CHANNELS, CLASSES), np.float32),
        "bias": bias,
    }
    nodes = [
        helper.make_node("Conv", ["images", "kernel", "feature"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["features"]),
        helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "gemm", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    labels = [f"{version}:{place}" for place in range(CLASSES)]
    helper.set_model_props(model, {METADATA_KEY: ModelCard(labels=labels).model_dump_json()})
    data: bytes = model.SerializeToString()
    return data


def write(folder: Path, version: int) -> None:
    """Write a version's folder as a user would copy it, file by file in place."""
    own = folder / NAME / str(version)
    own.mkdir(parents=True)
    (own / "model.onnx").write_bytes(network(version))


@dataclass(frozen=True)
class Road:
    """One way to ask.

    Attributes:
        name: for people.
        message: the request.
        read: gives the version that an answer names, and the one that its numbers say; NaN where they say none.
    """

    name: str
    message: bytes
    read: Callable[[bytes], tuple[int, float]]


def roads(seed: int = 0) -> list[Road]:
    """Give every road."""
    rng = np.random.default_rng(seed)
    tiny, small = (rng.integers(0, 256, (side, side, 3), np.uint8) for side in (_TINY, _SMALL))
    own = rng.random((3, _TINY, _TINY), np.float32)
    classify = f"/v1/classify?model={NAME}"
    embed = f"/v1/embed?model={NAME}&pool=avg,max&normalize=false"
    infer = f"/v2/models/{NAME}/infer"
    tensor: dict[str, Any] = {"name": "images", "shape": [1, *tiny.shape], "datatype": "UINT8"}
    document = {"inputs": [{**tensor, "data": tiny.ravel().tolist()}], "outputs": [{"name": "logits"}]}
    binary = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": tiny.size}}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
    header = json.dumps(binary).encode()
    numbers = "application/octet-stream"
    with_length = load.request(infer, header + tiny.tobytes(), content_type=numbers).replace(
        b"\r\n\r\n", b"\r\nInference-Header-Content-Length: %d\r\n\r\n" % len(header), 1
    )
    raw = f"{classify}&shape={_TINY},{_TINY},3&dtype=uint8"
    prepared = f"{classify}&shape=3,{_TINY},{_TINY}&dtype=float32"
    return [
        Road("raw pixels", load.request(raw, tiny.tobytes(), content_type=numbers), _classes),
        Road("own input", load.request(prepared, own.tobytes(), content_type=numbers), _classes),
        Road("tiny picture", load.request(classify, _png(tiny), content_type="image/png"), _classes),
        Road("picture", load.request(classify, _png(small), content_type="image/png"), _classes),
        Road("/v2 JSON", load.request(infer, json.dumps(document).encode(), content_type="application/json"), _logits),
        Road("/v2 binary", with_length, _binary_logits),
        Road("embed", load.request(embed, _png(small), content_type="image/png"), _features),
    ]


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _classes(body: bytes) -> tuple[int, float]:
    document = json.loads(body)
    version, place = document["results"][0]["predictions"][0]["label"].split(":")
    return int(document["version"]), float(version) if int(place) == int(version) % CLASSES else float("nan")


def _said(logits: np.ndarray) -> float:
    version = float(logits.max())
    alone = np.count_nonzero(logits) == 1 and logits.argmax() == version % CLASSES
    return version if alone else float("nan")


def _logits(body: bytes) -> tuple[int, float]:
    document = json.loads(body)
    return int(document["model_version"]), _said(np.array(document["outputs"][0]["data"]))


def _binary_logits(body: bytes) -> tuple[int, float]:
    numbers = 4 * CLASSES
    document = json.loads(body[:-numbers])
    return int(document["model_version"]), _said(np.array(struct.unpack(f"<{CLASSES}f", body[-numbers:])))


def _features(body: bytes) -> tuple[int, float]:
    document = json.loads(body)
    numbers = set(document["results"][0]["embedding"])
    return int(document["version"]), numbers.pop() if len(numbers) == 1 else float("nan")

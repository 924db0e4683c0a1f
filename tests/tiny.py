"""Small ONNX classifiers built by hand, with a NumPy oracle: Conv 3×3 → Relu → mean over space → Gemm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graphs.card import METADATA_KEY, ModelCard, Preprocessing

LABELS = ("cat", "dog", "bird")


@dataclass(frozen=True)
class TinyClassifier:
    """Weights of one small network, float32; `logits` computes it in float64."""

    conv: np.ndarray  # (4, C, 3, 3)
    gemm: np.ndarray  # (4, K)
    bias: np.ndarray  # (K,)

    @classmethod
    def random(cls, seed: int, channels: int = 3, classes: int = len(LABELS)) -> TinyClassifier:
        rng = np.random.default_rng(seed)
        return cls(
            rng.normal(size=(4, channels, 3, 3)).astype(np.float32),
            rng.normal(size=(4, classes)).astype(np.float32) * 4,
            rng.normal(size=classes).astype(np.float32),
        )

    def logits(self, image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
        """The network on one picture uint8 (H,W,C), RGB or grey, in float64."""
        x = image.astype(np.float64).transpose(2, 0, 1)  # (C,H,W)
        if preprocessing.channels == "BGR":
            x = x[::-1]
        mean = np.broadcast_to(preprocessing.mean, len(x))[:, None, None]
        std = np.broadcast_to(preprocessing.std, len(x))[:, None, None]
        x = np.pad((x * preprocessing.scale - mean) / std, ((0, 0), (1, 1), (1, 1)))
        h, w = image.shape[:2]
        patches = np.stack([x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=1)  # (C,9,H,W)
        weights = self.conv.astype(np.float64).reshape(4, len(x), 9)
        features = np.maximum(np.einsum("ock,ckhw->ohw", weights, patches), 0)
        return np.asarray(features.mean((1, 2)) @ self.gemm.astype(np.float64) + self.bias)

    def to_onnx(
        self,
        card: ModelCard | None,
        *,
        size: tuple[int | str, int | str] = ("h", "w"),
        batch: int | str = "n",
        dtype: int = 1,
    ) -> onnx.ModelProto:
        channels = self.conv.shape[1]
        layout = card.preprocessing.layout if card else "NCHW"
        shape = [batch, channels, *size] if layout == "NCHW" else [batch, *size, channels]
        to = helper.tensor_dtype_to_np_dtype(dtype)
        nodes = [
            helper.make_node("Conv", ["x", "conv"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
            helper.make_node("Gemm", ["m", "gemm", "bias"], ["logits"]),
        ]
        if layout == "NHWC":
            nodes.insert(0, helper.make_node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2]))
        else:
            nodes.insert(0, helper.make_node("Identity", ["images"], ["x"]))
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("images", dtype, shape)],
            [helper.make_tensor_value_info("logits", dtype, [batch, self.gemm.shape[1]])],
            [
                numpy_helper.from_array(self.conv.astype(to), "conv"),
                numpy_helper.from_array(self.gemm.astype(to), "gemm"),
                numpy_helper.from_array(self.bias.astype(to), "bias"),
                numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        if card:
            helper.set_model_props(model, {METADATA_KEY: card.model_dump_json()})
        return model

    def save(self, folder: Path, card: ModelCard | None, **options: object) -> Path:
        """Write <folder>/model.onnx, making the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        path.write_bytes(self.to_onnx(card, **options).SerializeToString())  # type: ignore[arg-type]
        return path


def card(channels: str = "RGB", **members: object) -> ModelCard:
    """A card that fits `TinyClassifier.random`, with numbers that would show if they were left out."""
    count = 1 if channels == "L" else 3
    preprocessing = {"channels": channels, "mean": [0.4, 0.5, 0.6][:count], "std": [0.2, 0.3, 0.25][:count]}
    return ModelCard.model_validate({"labels": LABELS, "preprocessing": preprocessing, **members})
